"""Making datasets whose every frame carries its identity."""
