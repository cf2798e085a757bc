"""A file of lines that only grows: every line is on the disk before the next thing is asked.

A line that was cut off (a full disk, a lost connection) was never acknowledged: readers pass over it, and the
next line takes its place.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from io import BufferedRandom
from pathlib import Path
from typing import Any

import filelock

from luthier.errors import RecordError
from luthier.record import explain_os_errors, fsync_folder

PATIENCE_SECONDS = 10.0


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Number and object of every line, without a cut-off last one; none where there is no file.

    Raises:
        RecordError: another line is not a JSON object, or the file cannot be read.
    """
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _parse(line)
        if row is None:
            raise RecordError(
                "is not a JSON object",
                where=f"{path}:{number}",
                fix="take the line out if the file is one of `luthier rank`, or choose another --out",
            )
        found.append((number, row))
    whole = _parse(last)
    return found if whole is None else [*found, (len(lines) + 1, whole)]


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line, durably; several processes may do so.

    Raises:
        RecordError: it cannot be written, or another process holds the file for too long.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(lock_of(path), timeout=PATIENCE_SECONDS), path.open("ab+") as file:
                _heal(file)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except filelock.Timeout:
            raise RecordError(
                "another process holds the file", where=str(path), fix="end it, then go on"
            ) from None
        fsync_folder(path.parent)


@contextlib.contextmanager
def held(path: Path, purpose: str, *, told: str, fix: str) -> Iterator[None]:
    """Hold a file for one process and purpose, without waiting.

    Raises:
        RecordError: another process holds it, which is `told`; or it cannot be locked.
    """
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(lock_of(path, purpose))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RecordError(told, where=str(path), fix=fix) from None
    try:
        yield
    finally:
        lock.release()


def lock_of(path: Path, purpose: str = "lock") -> Path:
    """The hidden file beside `path` that is locked for a purpose."""
    return path.with_name(f".{path.name}.{purpose}")


def _heal(file: BufferedRandom) -> None:
    """Make the file end with a whole line."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if _parse(content[start:]) is None:
        file.truncate(start)
    else:
        file.write(b"\n")  # whole but for its end, or written by an editor


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
