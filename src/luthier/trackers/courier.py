"""Carries numbers to a tracker on a thread of its own: it may be slow, or fail, and training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luthier.trackers.tracker import Plain, Tracker

START_SECONDS = 30.0  # until then training waits: packages are imported, a server is asked
FINISH_SECONDS = 60.0  # for what is still held back,
STOP_SECONDS = 5.0  # and where the run was stopped, or failed: it has to end


class Courier:
    """One tracker and its thread. All calls to the tracker are made by that thread.

    Args:
        tell: gets one line where something is to be said, from the thread that calls the courier.
    """

    def __init__(self, name: str, tracker: Tracker, tell: Callable[[str], None]) -> None:
        self.name = name
        self._tracker = tracker
        self._tell = tell
        self._waiting: SimpleQueue[tuple[int, Mapping[str, float]] | None] = SimpleQueue()
        self._started = threading.Event()
        self._says: SimpleQueue[str] = SimpleQueue()
        self._broken = False
        self._done = False
        self._thread: threading.Thread | None = None

    def start(self, run_name: str, config: Mapping[str, Plain]) -> None:
        """Begin; waits until the tracker is ready, but not for long."""
        self._thread = threading.Thread(
            target=self._work, args=(run_name, dict(config)), name=f"luthier-{self.name}", daemon=True
        )
        self._thread.start()
        self._started.wait(START_SECONDS)
        self._speak()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand over numbers; returns at once."""
        self._speak()
        if not self._broken:
            self._waiting.put((step, dict(numbers)))

    def end(self, *, done: bool) -> None:
        """Nothing more comes; returns at once."""
        self._done = done
        self._waiting.put(None)

    def wait(self, until: float) -> None:
        """Wait for what is still under way, but not beyond a moment of the monotonic clock."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._tell(f"{self.name} did not take all numbers in time; the rest is dropped")
        self._speak()

    def _speak(self) -> None:
        while not self._says.empty():
            self._tell(self._says.get())

    def _work(self, run_name: str, config: Mapping[str, Plain]) -> None:
        """The thread: start, log what comes, finish."""
        try:
            self._says.put(f"{self.name}: {self._tracker.start(run_name, config)}")
            self._started.set()
            while (carried := self._waiting.get()) is not None:
                self._tracker.log(*carried)
            self._tracker.finish(done=self._done)
        # any error of any tracker: it must not reach the training
        except Exception as error:
            self._broken = True
            told = str(error).strip().partition("\n")[0]
            self._says.put(f"{self.name} failed, training goes on without it: {type(error).__name__}: {told}")
        finally:
            self._started.set()
