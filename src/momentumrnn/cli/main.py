"""From words on the command line to a command, and from an error to a message."""

import sys
from collections.abc import Sequence

from momentumrnn import errors
from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.cli.reproducing.errors import ReproduceError

EXPECTED = (
    errors.BackendError,
    errors.CheckpointError,
    errors.DataError,
    errors.DataMissingError,
    errors.DivergedError,
    errors.InputError,
    errors.RecipeError,
    BenchmarkError,
    ReproduceError,
)
FAILED, INTERRUPTED = 2, 130
# What the extra [experiments] brings, by the names it is imported under.
EXTRA = {
    "lightning_fabric",
    "tyro",
    "rich",
    "tensorboard",
    "pooch",
    "sklearn",
    "pandas",
    "matplotlib",
    "safetensors",
    "scipy",
    "soundfile",
    "numpy",
}
# What further extras bring, and which.
FURTHER = {"optuna": "sweep"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after ``momentumrnn``; those of the process where absent.

    Returns:
        The exit code: 0, 2 for an error, 130 for an interrupt.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        from importlib.metadata import version

        print(f"momentumrnn {version('momentumrnn')}")
        return 0
    try:
        from momentumrnn.cli.commands import run_command

        run_command(words)
    except EXPECTED as error:
        return _fail(f"error: {error}", FAILED)
    except KeyboardInterrupt as error:
        return _fail(f"interrupted: {error}" if str(error) else "interrupted", INTERRUPTED)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        further = FURTHER.get(missing)
        if missing not in EXTRA and further is None:
            raise
        extras = f"experiments,{further}" if further else "experiments"
        return _fail(
            f"error: {error.name} is not installed; this command needs the {further or 'experiments'} extra: "
            f"pip install 'momentumrnn[{extras}]'",
            FAILED,
        )
    except BrokenPipeError:
        # The reader, such as `head`, has gone; nothing is left to be said.
        sys.stderr.close()
        return 0
    return 0


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
