"""Whether this process is the command line."""

import sys
from pathlib import PurePath

COMMAND, MODULE = "momentumrnn", "momentumrnn.cli"


def is_command_line() -> bool:
    """Whether ``momentumrnn`` or ``python -m momentumrnn.cli`` is what imports the package."""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    if script == "-m":
        # What Python is given with -m stands in sys.argv only after the packages above it are imported.
        return ("-m", MODULE) in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return PurePath(script).stem == COMMAND
