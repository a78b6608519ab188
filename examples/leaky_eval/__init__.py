"""A policy evaluation over a simulator that leaks, for `millpond sweep`."""
