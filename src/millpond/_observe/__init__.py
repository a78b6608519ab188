"""Observing: memory of the process tree, the ceiling, reports."""
