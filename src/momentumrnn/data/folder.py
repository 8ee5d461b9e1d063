"""Where data files live, and where what was computed from them is kept."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "MOMENTUMRNN_DATA"


def data_folder(explicit: str | Path | None = None) -> Path:
    """The folder that holds the datasets, one folder each.

    Args:
        explicit: A folder named by the caller; it wins over everything else.

    Returns:
        ``explicit``, else the folder in the environment variable ``MOMENTUMRNN_DATA``, else
        ``momentumrnn`` in the user's cache folder. It need not exist.
    """
    if explicit is not None:
        return Path(explicit).expanduser()
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if from_environment:
        return Path(from_environment).expanduser()
    return cache_folder()


def cache_folder() -> Path:
    """The folder for what can be fetched or computed again: ``momentumrnn`` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "momentumrnn"
