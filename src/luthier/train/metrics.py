"""`metrics.jsonl`, a line per step, and `losses.jsonl`, a line per example that it saw.

Both are appended as it happens, and durable with every checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luthier.record import fsync_folder


class Metrics:
    """Such a file. A checkpoint remembers its length in bytes, not its lines.

    A line that cannot be written (full disk) is kept and tried again with the next one; `sync` says so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = 0
        self._unwritten = b""

    def rewind(self, length: int) -> bool:
        """Drop what was written after the first `length` bytes; False when so many are not there any more."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            whole = file.seek(0, os.SEEK_END) >= length
            if whole:
                file.truncate(length)
            else:  # keep the whole lines that are left
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            self.length = file.seek(0, os.SEEK_END)
        self._unwritten = b""
        return whole

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line; readers see it at once."""
        self.extend([line])

    def extend(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines, as `append` does."""
        self._unwritten += b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines)
        with contextlib.suppress(OSError):
            self._write()

    def sync(self) -> None:
        """Make all lines durable.

        Raises:
            OSError: they cannot be written.
        """
        self._write()
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        fsync_folder(self.path.parent)

    def _write(self) -> None:
        with self.path.open("ab") as file:
            there = file.seek(0, os.SEEK_END)
            file.truncate(min(there, self.length))  # a part of a line, when the disk was full
            file.write(self._unwritten)
        self.length = min(there, self.length) + len(self._unwritten)
        self._unwritten = b""
