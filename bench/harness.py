"""The parent's end: worker processes that take turns, one step at a time.

The parent imports no torch: a worker's peak memory would otherwise start at the parent's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ANSWER_SECONDS = 1800.0  # the longest a worker may be silent; compilation is the slowest thing it does
STDERR_LINES = 25


class BenchError(Exception):
    """A measurement that cannot be trusted or did not happen; nothing is written."""


class Worker:
    """A module of `bench.workers` in a process of its own.

    Raises:
        BenchError: from `ask`, when it ends or says nothing; carries the end of its stderr.
    """

    def __init__(self, module: str, job: Mapping[str, Any], *, threads: int) -> None:
        self.module = module
        # a file, not a pipe: nobody reads a pipe while the worker is at work, and it would fill up
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.workers.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            cwd=ROOT,
            env=os.environ | _environment(threads),
        )
        self._send({"threads": threads, **job})

    def answer(self) -> dict[str, Any]:
        """Wait for the worker's next message."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(ANSWER_SECONDS, self._process.kill)
        watchdog.start()
        try:
            text = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not text:
            code = self._process.wait()
            raise BenchError(f"worker {self.module} ended with code {code}:\n{self._tail()}")
        message: dict[str, Any] = json.loads(text)
        return message

    def go(self) -> dict[str, Any]:
        """Let it run one step and wait for the report."""
        self._send({"do": "go"})
        return self.answer()

    def finish(self) -> dict[str, Any]:
        """Let it end after its last step and wait for its last words."""
        return self.go()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self._stderr.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            code = self._process.wait()
            raise BenchError(f"worker {self.module} ended with code {code}:\n{self._tail()}") from None

    def _tail(self) -> str:
        self._stderr.seek(0)
        return "\n".join(self._stderr.read().splitlines()[-STDERR_LINES:])


def take_turns(a: Worker, b: Worker, *, warm: int, pairs: int) -> tuple[list[dict[str, Any]], ...]:
    """Step reports of both sides, A B B A ...; the first `warm` of each are warm-up.

    Step k of one side and step k of the other are a pair: same batch, measured next to each other.
    """
    reports: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for turn in range(warm + pairs):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            reports[side].append((a, b)[side].go())
    return reports


def _environment(threads: int) -> dict[str, str]:
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
    }
