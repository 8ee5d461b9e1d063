"""The one place that loads ``_cpu``, the C++ kernels, and knows what to say where there are none."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType

from momentumrnn.errors import BackendError, warn
from momentumrnn.nearest import did_you_mean

__all__ = ["extension", "forced_isa", "forked", "missing", "warn_if_missing"]

_NAME = "momentumrnn.kernels._cpu"
_VARIABLE = "MOMENTUMRNN_ISA"
_REINSTALL = (
    "run pip install --force-reinstall --no-deps --no-cache-dir momentumrnn "
    "(in a checkout, with . in place of the name)"
)

_lock = Lock()
_forked = False
_loaded: tuple[ModuleType | None, str | None] | None = None
_warned = False


def extension() -> ModuleType | None:
    """Return the module of C++ kernels, or ``None`` where it was not built or cannot be loaded.

    It is loaded at the first call, on the best instruction set of this processor or on the one
    that the environment variable ``MOMENTUMRNN_ISA`` names.

    Raises:
        BackendError: ``MOMENTUMRNN_ISA`` names an instruction set that these kernels or this
            processor do not have.
    """
    return (_loaded or _load())[0]


def missing() -> str | None:
    """Return why there are no C++ kernels and how to get them, or ``None`` where they are loaded."""
    return (_loaded or _load())[1]


def warn_if_missing() -> None:
    """Warn with what ``missing`` says, the first time in a process and never again."""
    global _warned
    text = missing()
    with _lock:
        if text is None or _warned:
            return
        _warned = True
    warn(text, RuntimeWarning)


@contextmanager
def forced_isa(name: str) -> Iterator[None]:
    """Run the C++ kernels inside the ``with`` block on one instruction set, in every thread.

    Args:
        name: ``"avx512"``, ``"avx2"`` or ``"baseline"``.

    Raises:
        BackendError: these kernels or this processor do not have it, or there are no kernels.
    """
    kernels = extension()
    if kernels is None:
        raise BackendError(f"expected C++ kernels to run on {name!r}, got none: {missing()}")
    before: str = kernels.isa()
    _use_isa(kernels, name)
    try:
        yield
    finally:
        kernels.use_isa(before)


def forked() -> bool:
    """Whether this process was forked from one that had imported this package."""
    return _forked


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _load() -> tuple[ModuleType | None, str | None]:
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _import()
        return _loaded


def _import() -> tuple[ModuleType | None, str | None]:
    try:
        kernels = importlib.import_module(_NAME)
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
        return None, (
            "the C++ kernels were not built when momentumrnn was installed, so slower code runs in their "
            "place; install GCC or Clang (Debian: apt install g++ python3-dev; macOS: xcode-select "
            f"--install; Windows: clang-cl) and {_REINSTALL}"
        )
    except ImportError as error:
        return None, (
            f"the C++ kernels of momentumrnn are installed but cannot be loaded ({error}), so slower code "
            f"runs in their place; to build them again, {_REINSTALL}"
        )
    if _forked:
        # Torch's threads may have begun in the parent, and would be waited for here for ever.
        kernels.run_alone()
    if name := os.environ.get(_VARIABLE):
        _use_isa(kernels, name, f"the environment variable {_VARIABLE}: ")
    return kernels, None


def _use_isa(kernels: ModuleType, name: str, who: str = "") -> None:
    try:
        kernels.use_isa(name)
    except ValueError:
        available: list[str] = kernels.isas()
        hint = did_you_mean(name, available, before="; ")
        raise BackendError(
            f"{who}expected an instruction set that the kernels and this processor have, among "
            f"{', '.join(available)}, got {name!r}{hint}"
        ) from None
