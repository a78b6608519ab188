"""Sweeps: hundreds of jobs, one fresh process per chunk of them, and a ledger of what each one gave."""
