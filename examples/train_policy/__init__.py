"""Trains a small policy on as many processes as there are, and goes on after any of them was killed; see README.md."""
