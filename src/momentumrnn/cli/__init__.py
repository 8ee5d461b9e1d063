"""The command ``momentumrnn``."""

from momentumrnn.cli.main import main

__all__ = ["main"]
