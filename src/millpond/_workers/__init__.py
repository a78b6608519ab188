"""Processes: the zygote, its workers, and the supervisor that feeds and replaces them."""
