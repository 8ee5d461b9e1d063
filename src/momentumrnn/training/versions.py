"""What a run was made with."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch


def current_versions(device: str, processes: int = 1) -> dict[str, str | int | None]:
    """The versions and settings that numbers may depend on.

    Args:
        device: Where the model runs.
        processes: How many work on it together.
    """
    return {
        "momentumrnn": _installed_version("momentumrnn"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning-fabric": _installed_version("lightning-fabric"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    # A package installed into an environment inside some other repository must not take that one's commit.
    here = Path(__file__)
    try:
        for command in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            done = subprocess.run(
                ["git", *command], cwd=here.parent, capture_output=True, text=True, check=True, timeout=10
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
