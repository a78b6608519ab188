"""Datasets: what a sample is, where its bytes lie, and how a worker reads it."""
