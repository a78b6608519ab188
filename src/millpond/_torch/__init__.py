"""The drop-in DataLoader: torch's order and rules, with millpond's workers, limits and memory."""
