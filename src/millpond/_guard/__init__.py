"""The guard: any callable under a limit of time, in worker processes that may be killed at any moment."""
