"""The command `relugap`."""

from toolkit.cli.app import app, main

__all__ = ["app", "main"]
