"""The one way to the terminal: text reaches it with its control characters shown, not obeyed."""

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Names of files, keys of recipes and words of a text may hold what a terminal obeys: C0 and C1 without tabs
# and line ends, and characters that change the direction of writing.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    r"""Text with control characters as escapes of Python.

    Args:
        text: any text.

    >>> print(escape_controls("run-\x1b[31m"))
    run-\x1b[31m
    """
    return CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class EscapedStream(io.TextIOBase):
    """A text stream that shows control characters as escapes.

    Args:
        stream: where the text goes.
    """

    def __init__(self, stream: IO[str]) -> None:
        # rich looks for this name: what a console writes holds its own colours and cursor movements.
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(escape_controls(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self.rich_proxied_file.flush()

    def fileno(self) -> int:
        return self.rich_proxied_file.fileno()

    def isatty(self) -> bool:
        return self.rich_proxied_file.isatty()

    def close(self) -> None:
        """Nothing: the stream belongs to the process."""

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(getattr(self.rich_proxied_file, "encoding", "utf-8"))


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Let everything that is printed inside pass ``escape_controls``, and survive streams that are closed."""
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    nowhere = Path(os.devnull)
    streams: list[IO[str]] = [nowhere.open("w") if stream is None else stream for stream in before]
    for stream in streams:
        # A terminal that knows no dash is shown a question mark.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = map(EscapedStream, streams)
    try:
        yield
    finally:
        for stream in streams:
            _flush(stream)
        sys.stdout, sys.stderr = before


@contextmanager
def coloured_streams(words: Sequence[str]) -> Iterator[None]:
    """Let the parser use colours, unless the words that it may repeat hold control characters.

    Args:
        words: those of the command line.
    """
    escaped = sys.stdout, sys.stderr
    if not any(CONTROLS.search(word) for word in words):
        sys.stdout, sys.stderr = (getattr(stream, "rich_proxied_file", stream) for stream in escaped)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = escaped


def make_console(force_terminal: bool | None = None) -> "Console":
    """A console of rich whose own codes reach the terminal, while those in its texts are shown.

    Args:
        force_terminal: whether it writes to a terminal; found out where absent.
    """
    # Not at the top: --version and a mistyped command do without it.
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class EscapedConsole(Console):
        def render_str(self, text: str, **more: Any) -> Any:
            # Before a table is laid out by the widths of its cells.
            return super().render_str(escape_controls(text), **more)

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control is None and CONTROLS.search(segment.text):
                    segment = segment._replace(text=escape_controls(segment.text))
                yield segment

    file = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    # Nor do brackets in a name mean a style.
    return EscapedConsole(file=file, force_terminal=force_terminal, markup=False)


def say(text: str) -> None:
    """Print a line at once, also in a process that does not run ``main``.

    Args:
        text: the line.
    """
    # A log is read while the run lasts, and a killed process writes nothing more.
    print(escape_controls(text), flush=True)


def _flush(stream: IO[str]) -> None:
    # At its end Python would try once more, and tell of the failure as of an ignored exception.
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _open_closed_descriptors() -> None:
    # A file that is opened later would take the number of a standard stream that was closed, and be written
    # to by whatever prints.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
