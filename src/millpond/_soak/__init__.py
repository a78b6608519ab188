"""Soaking: a process tree is looked at for long; each of its series is flat, growing, or too short to say."""
