"""Datasets of millpond as datasources of Ray Data."""
