"""Two small models that were made, not trained: `make.py` says what their weights are."""
