"""What ends a command from outside: Ctrl-C, SIGTERM of a batch system, SIGHUP of a terminal that closes.

All of them raise KeyboardInterrupt in the main thread, so that what cleans up after one cleans up after each; but not
while files move to their place, which is a matter of milliseconds.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt(KeyboardInterrupt):
    """A signal has come.

    A class of its own: once a bare KeyboardInterrupt has passed through the exec of a text, as dataclasses are made
    while libraries load, Python run with -m ends with SIGINT, whatever exit code it was given.
    """


class Ending:
    """Whether a signal has come, and which: ``number`` is the last one's."""

    def __init__(self) -> None:
        self.number = signal.SIGINT
        self.held = 0
        self.came = self.waits = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler. Ctrl-C may be pressed again; a batch system that repeats itself is heard once."""
        if self.came and number != signal.SIGINT:
            return
        self.number, self.came = signal.Signals(number), True
        if self.held:
            self.waits = True
            return
        raise Interrupt

    def release(self) -> None:
        """The end of what must not be interrupted."""
        self.held -= 1
        if self.waits and not self.held:
            self.waits = False
            raise Interrupt


_ending: Ending | None = None  # of the command that runs


@contextmanager
def heard() -> Iterator[Ending]:
    """Turns the signals into KeyboardInterrupt, and gives them back to whoever had them.

    What was to be ignored, as ``nohup`` has SIGHUP ignored, stays so. Beside the main thread nothing changes.
    """
    global _ending
    ending, outer = Ending(), _ending
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ENDS if is_main}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, ending)
        _ending = ending
        yield ending
    finally:
        _ending = outer
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def held_back() -> Iterator[None]:
    """What is inside is done to its end; a signal that comes meanwhile interrupts after it."""
    if _ending is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _ending
    ending.held += 1
    try:
        yield
    finally:
        ending.release()
