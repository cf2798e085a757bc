"""SIGTERM and SIGINT while training: what is under way is given up, what is done is saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from luthier.errors import StoppedError


class _Stop(BaseException):
    """Raised where the work stands; not an Exception, so that no handler on the way takes it for an error."""


class Stop:
    """Whether to stop. A signal interrupts the work at once, but not inside `held`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._saving = False
        self._held = 1  # until the block begins, and from its end on: nothing is there to interrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let what is inside finish as a whole: an update, a line, a checkpoint."""
        self.check()
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self.check()

    def check(self) -> None:
        """Stop here if a signal came, even one whose exception was lost on the way."""
        if self.signal is not None:
            raise _Stop

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. While the last checkpoint is written, SIGINT still ends it: two Ctrl-C."""
        if self.signal is not None:
            if self._saving and number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        if not self._held:
            raise _Stop

    def begin(self) -> None:
        """The work begins: signals interrupt it now."""
        self._held -= 1
        self.check()

    def end(self) -> None:
        """The work is over; a signal that came before is heeded, a later one no longer interrupts."""
        self._held += 1

    def begin_saving(self) -> None:
        """From now on signals only matter to the writing of the last checkpoint."""
        self._saving = True


@contextlib.contextmanager
def stopping(save: Callable[[], str]) -> Iterator[Stop]:
    """Handle SIGTERM and SIGINT in the block: stop, `save`, and leave it with an error.

    Handlers are set in the main thread only, not for a signal that is ignored (nohup), and put back.

    Args:
        save: saves what is done; returns what it did, in words.

    Raises:
        StoppedError: SIGTERM came.
        KeyboardInterrupt: SIGINT came.
    """
    stop = Stop()
    before: dict[signal.Signals, Any] = {}
    finished = False
    try:
        _install(stop, before)
        stop.begin()
        try:
            yield stop
        finally:
            stop.end()
        stop.check()
        finished = True
    except _Stop:
        stop.begin_saving()
        told = save()
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt(told) from None
        raise StoppedError(
            f"stopped by SIGTERM; {told}", fix="run the same command again, it goes on from there"
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if finished and stop.signal is not None:  # too late to stop this work, not what comes after it
            signal.raise_signal(stop.signal)


def _install(stop: Stop, before: dict[signal.Signals, Any]) -> None:
    """Set the handlers; `before` receives those that were there, in time for whoever interrupts."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_IGN, None):  # None: set by a library in C, and could not be put back
            before[number] = handler
            signal.signal(number, stop.receive)
