"""`python -m millpond` is the command line."""

from __future__ import annotations

from millpond._cli import app

if __name__ == "__main__":
    app()
