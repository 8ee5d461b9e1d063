"""From words on the command line to a command, and from an error to a message."""

import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from momentumrnn import errors
from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.cli.reproducing.errors import ReproduceError
from momentumrnn.cli.terminal import escaped_streams

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
# The last is what a shell reports of a process that SIGPIPE has ended: the work need not be done.
FAILED, INTERRUPTED, READER_GONE = 2, 130, 141
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
# What is larger than any address is refused by torch and NumPy in words of their own.
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Storage size calculation overflowed",
    "array is too big",
    "Maximum allowed dimension exceeded",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after ``momentumrnn``; those of the process where absent.

    Returns:
        The exit code: 0, 2 for an error, 130 for an interrupt.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with escaped_streams():
        return _run(words)


def _run(words: Sequence[str]) -> int:
    try:
        if words == ["--version"]:
            from importlib.metadata import version

            print(f"momentumrnn {version('momentumrnn')}")
        else:
            from momentumrnn.cli.commands import run_command

            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                run_command(words)
        sys.stdout.flush()
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
            f"pip install 'momentumrnn[{extras}]' (in a checkout: '.[{extras}]')",
            FAILED,
        )
    except BrokenPipeError:
        # The reader, such as `head`, has gone; nothing is left to be said.
        return READER_GONE
    except (MemoryError, RuntimeError, ValueError) as error:
        # torch's own is a RuntimeError, on the CPU one like any other.
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        said = str(error).partition("\n")[0]
        return _fail(
            f"error: out of memory ({said}); make the batch, the sequences or the model smaller", FAILED
        )
    except OSError as error:
        return _fail(f"error: {error}", FAILED)
    return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A line without the source that it comes from, which is none of the reader's."""
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    # Where standard error cannot be written either, the code alone is left to tell.
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)
    return code
