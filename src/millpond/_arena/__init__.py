"""The arena: one fixed piece of memory that every process maps, handed out in slots, lent as leases."""
