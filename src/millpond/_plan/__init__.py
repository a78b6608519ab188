"""Pure planning: no I/O, no processes, no clock."""
