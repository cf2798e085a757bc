"""Checkpoints: safetensors and JSON in a folder that is either whole or not there.

Written to a temporary folder: tensors and state are synced, the manifest of sha256 sums comes last,
the folder is synced, renamed, and its parent synced. Loading verifies the sums and falls back to the
one before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from luthier.errors import TrainingError
from luthier.record import as_os_error, fsync_folder, replace_folder, write_json

FORMAT = 2  # of the folder and of what is in it; another one is not read
KEEP = 2
NAME = re.compile(r"step-(\d+)(-validated)?")
FILES = ("tensors.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and plain values.

    Args:
        step: the optimizer steps done.
        validated: whether the validation that follows this step is done too.
    """

    step: int
    validated: bool
    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name: unlike for any two moments of a run."""
        return f"step-{self.step:06d}" + ("-validated" if self.validated else "")


class Checkpoints:
    """The folder of a run's checkpoints: the newest two that are known to be whole.

    Args:
        key: hash of everything that decides the result; checkpoints of another key are not read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.passed_over: list[str] = []
        self._whole: list[Path] = []

    @property
    def newest(self) -> str | None:
        """Name of the checkpoint that was loaded or saved last."""
        return self._whole[-1].name if self._whole else None

    def load(self, fits: Callable[[Checkpoint], bool] = lambda checkpoint: True) -> Checkpoint | None:
        """The newest whole checkpoint of this key that fits, or None; `passed_over` names those after it.

        Raises:
            TrainingError: there is none, and one may be whole that cannot be read now: a disk that is away
                must not cost a training.
        """
        unreadable: list[tuple[Path, OSError]] = []
        for path in reversed(_finished(self.folder)):
            try:
                checkpoint = self._read(path)
            except OSError as error:
                unreadable.append((path, error))
                checkpoint = None
            if checkpoint is not None and fits(checkpoint):
                self._whole = [path]
                return checkpoint
            self.passed_over.append(path.name)
        if unreadable:
            path, cause = unreadable[0]
            raise TrainingError(
                f"this checkpoint cannot be read: {cause.strerror or cause}",
                where=str(path),
                fix=f"see to the disk and try again, or start anew by removing {self.folder}",
            ) from cause
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove all but the newest two.

        Raises:
            OSError: it could not be written; those before are as they were.
        """
        final = self.folder / checkpoint.name
        if self._whole and self._whole[-1] == final:
            return
        self._remove_leftovers()
        temporary = self.folder / f".{final.name}.writing"
        try:
            _make_folder(self.folder)
            temporary.mkdir()
            _write(temporary, checkpoint, self.key)
            replace_folder(temporary, final)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            system = as_os_error(error)
            if system is None or system is error:
                raise
            raise system from error
        self._whole = [*self._whole, final][-KEEP:]
        for other in _finished(self.folder):
            if other not in self._whole:
                shutil.rmtree(other, ignore_errors=True)

    def clear(self) -> None:
        """Remove all: the training is finished, or another one begins."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._whole = []

    def _remove_leftovers(self) -> None:
        """What killed processes left half written or half removed."""
        for path in self.folder.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)

    def _read(self, folder: Path) -> Checkpoint | None:
        """None where it is damaged, or of another key or format; an OSError where nobody can tell."""
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            if (manifest["format"], manifest["key"]) != (FORMAT, self.key):
                return None
            if any(_sha256(folder / name) != manifest["sha256"][name] for name in FILES):
                return None
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(str(folder / "tensors.safetensors"))
            return Checkpoint(state.pop("step"), state.pop("validated"), tensors, state)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        except SafetensorError as error:
            system = as_os_error(error)
            if system is None:
                return None
            raise system from error


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, with names that last."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def _sha256(path: Path) -> str:
    """`record.sha256_of` says only that a file cannot be read, not why."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(folder: Path, checkpoint: Checkpoint, key: str) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, str(folder / "tensors.safetensors"))
    with (folder / "tensors.safetensors").open("rb") as file:
        os.fsync(file.fileno())
    plain = {"step": checkpoint.step, "validated": checkpoint.validated, **checkpoint.state}
    write_json(folder / "state.json", plain)
    sums = {name: _sha256(folder / name) for name in FILES}
    write_json(folder / "manifest.json", {"format": FORMAT, "key": key, "sha256": sums})


def _finished(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, whether whole or not."""
    found = [(match, path) for path in folder.glob("step-*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: (int(pair[0][1]), bool(pair[0][2])))]
