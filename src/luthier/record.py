"""The run folder: every file written atomically, every finished stage remembered by its inputs' hash.

A stage is a name, a dictionary of inputs (plain values and hashes), the files it writes, and the
work. `Record.stage` runs the work only when the inputs changed or an output is missing or altered;
outputs are hashed afterwards, and later stages name those hashes among their inputs. So a killed
run goes on where it stopped, and a changed key recomputes only what depends on it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from luthier.errors import LuthierError, RecordError
from luthier.recipe import digest

STAGE_FOLDER = ".stages"


class Record:
    """A run folder on disk.

    Args:
        path: the folder; created when absent.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writer.

        Raises:
            RecordError: another process is writing to it, or the folder cannot be made.
        """
        with explain_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise RecordError(
                    "another luthier is working in this run folder",
                    where=str(self.path),
                    fix="wait for it, or choose another folder with --out",
                ) from None
        try:
            yield
        finally:
            lock.release()

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Iterable[str],
        work: Callable[[], None],
        *,
        spoils: Iterable[str] = (),
    ) -> bool:
        """Run `work` unless it is already done for these inputs. Returns whether it ran.

        Args:
            name: unique name of the stage, such as `answer-few_shot`.
            inputs: JSON values that decide the result.
            outputs: files or folders, relative to the run folder, that `work` writes.
            work: writes the outputs, each atomically.
            spoils: files that tell of this stage's earlier outputs; removed before it runs again.
        """
        key = digest(inputs)
        if self.is_done(name, key):
            return False
        memo = self.path / STAGE_FOLDER / f"{name}.json"
        started = time.perf_counter()
        with explain_os_errors(self.path):
            for stale in (memo, *(self.path / spoiled for spoiled in spoils)):
                stale.unlink(missing_ok=True)
            work()
            hashes = {output: sha256_of(self.path / output) for output in outputs}
            assert None not in hashes.values(), f"stage {name} did not write all of {list(hashes)}"
            write_json(
                memo,
                {
                    "stage": name,
                    "key": key,
                    "inputs": dict(inputs),
                    "outputs": hashes,
                    "seconds": round(time.perf_counter() - started, 3),
                },
            )
        return True

    def is_done(self, name: str, key: str) -> bool:
        """Whether stage `name` finished for inputs with digest `key` and its outputs are unaltered."""
        memo = self.stage_memo(name)
        return (
            memo is not None
            and memo["key"] == key
            and all(sha256_of(self.path / output) == sha for output, sha in memo["outputs"].items())
        )

    def stage_memo(self, name: str) -> dict[str, Any] | None:
        """What is remembered of a finished stage: its key, inputs, output hashes and seconds."""
        path = self.path / STAGE_FOLDER / f"{name}.json"
        try:
            memo: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return memo

    def output_hash(self, name: str) -> str:
        """Digest of a finished stage's outputs, for the inputs of the stages after it."""
        memo = self.stage_memo(name)
        if memo is None:
            raise RecordError(f"stage {name!r} has not run", where=str(self.path))
        return digest(memo["outputs"])

    def read_json(self, name: str, *, needed_by: str | None = None) -> Any:
        """A JSON file of the folder.

        Raises:
            RecordError: it is not there or not JSON; `needed_by` names the command that makes it.
        """
        path = self.path / name
        fix = f"run: luthier {needed_by} {self.path}" if needed_by else None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecordError("not in this run folder yet", where=str(path), fix=fix) from None
        except ValueError as error:
            raise RecordError(f"not valid JSON: {error}", where=str(path), fix=fix) from None

    def read_jsonl(self, name: str, *, needed_by: str | None = None) -> list[dict[str, Any]]:
        """A JSONL file of the folder, as a list of objects; raises as `read_json`."""
        path = self.path / name
        fix = f"run: luthier {needed_by} {self.path}" if needed_by else None
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecordError("not in this run folder yet", where=str(path), fix=fix) from None
        rows = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise RecordError(f"not valid JSON: {error}", where=f"{path}:{number}", fix=fix) from None
        return rows


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part (fsync and rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. NaN and infinity are refused: undefined is null."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in the place of an older one: fsync its files, then rename."""
    for file in sorted(temporary.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    fsync_folder(temporary)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable; a no-op where folders cannot be synced.

    Raises:
        OSError: the disk is full or failing.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


def sha256_of(path: Path) -> str | None:
    """sha256 of a file, or of a folder's file names and contents; None when it is not there."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return digest([[str(p.relative_to(path)), sha256_of(p)] for p in files])
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a failing one or a refused write into a `RecordError` that says so."""
    try:
        yield
    except LuthierError:
        raise
    except Exception as raised:
        error = as_os_error(raised)
        if error is None:
            raise
        where = str(error.filename or path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RecordError(
                f"no space left on the disk ({free_space(path)} free); what was finished before is intact",
                where=where,
                fix="free some space and run the same command again, it goes on where it stopped",
            ) from raised
        if error.errno == errno.EIO:
            raise RecordError(
                "the disk reports an input/output error; what was finished before is intact",
                where=where,
                fix="check the disk, then run the same command again, or with --out on another one",
            ) from raised
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EPERM):
            raise RecordError(
                f"cannot be written: {error.strerror}", where=where, fix="choose another folder with --out"
            ) from raised
        raise


def as_os_error(error: BaseException) -> OSError | None:
    """The operating system's error behind an exception: safetensors and tokenizers wrap it in their own."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def free_space(path: Path) -> str:
    """Room on the disk of a path, in words."""
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(path).free / 1e6:.1f} MB"
    return "an unknown amount"
