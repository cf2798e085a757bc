"""The worker's end of the pipe: JSON lines in on stdin, JSON lines out on stdout."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any


class Line:
    """A worker's connection to the parent.

    Whatever libraries print goes to stderr, so that it cannot be taken for an answer.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def receive(self) -> dict[str, Any]:
        """The next message; the process ends quietly when the parent is gone or says stop."""
        text = sys.stdin.readline()
        message: dict[str, Any] = json.loads(text) if text else {"do": "stop"}
        if message.get("do") == "stop":
            # not SystemExit: it would have to pass through the training loop, which may catch or save
            self._out.close()
            sys.stderr.flush()
            os._exit(0)
        return message

    def send(self, **message: Any) -> None:
        """Answer the parent."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


class Steps:
    """Step boundaries of a training loop: it runs one step for every "go" of the parent."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._began = 0.0

    def begin(self, **facts: Any) -> None:
        """Report that everything is loaded, and wait for the first go."""
        self._line.send(event="ready", peak_bytes=peak_bytes(), **facts)
        self._wait()

    def end_step(self, **facts: Any) -> None:
        """Report the step that just ended, and wait for the next go."""
        seconds = time.perf_counter() - self._began
        self._line.send(event="step", seconds=seconds, peak_bytes=peak_bytes(), **facts)
        self._wait()

    def _wait(self) -> None:
        self._line.receive()
        self._began = time.perf_counter()


def peak_bytes() -> int:
    """The largest resident set that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
