"""Ctrl-C between steps instead of inside one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False

    def _request(self, number: int, frame: FrameType | None) -> None:
        # Asked a second time, stop at once: what the last checkpoint holds is all that stays.
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def catch_interrupts() -> Iterator[Interrupt]:
    """Turn Ctrl-C and SIGTERM into a flag while the context lasts.

    One that nobody looked at is a ``KeyboardInterrupt`` when it ends: what comes next is not to begin.

    An exception raised in the middle of an optimizer's step would leave half of the weights updated, and
    the checkpoint written then would be no state that an undisturbed run passes through.
    """
    interrupt = Interrupt()
    # Only the main thread may set handlers; elsewhere signals do not arrive either.
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interrupt._request) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupt.requested:
        raise KeyboardInterrupt
