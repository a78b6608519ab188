"""`millpond doctor`: what a machine, a container and a store are like, before a run finds out."""
