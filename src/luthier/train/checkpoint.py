"""Checkpoints: safetensors and JSON in a folder that is either whole or not there.

Written to a temporary folder: tensors and state are synced, the manifest of sha256 sums comes last,
and only then is the folder renamed. Loading verifies the sums and falls back to the one before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from luthier.record import replace_folder, sha256_of, write_json

KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and plain values."""

    step: int
    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-NNNNNN`, then drop all but the newest two."""
    final = folder / f"step-{checkpoint.step:06d}"
    temporary = folder / f".{final.name}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, str(temporary / "tensors.safetensors"))
    write_json(temporary / "state.json", {"step": checkpoint.step, **checkpoint.state})
    sums = {name: sha256_of(temporary / name) for name in ("tensors.safetensors", "state.json")}
    write_json(temporary / "manifest.json", sums)
    replace_folder(temporary, final)
    for old in _finished(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_newest(folder: Path, *, key: str) -> Checkpoint | None:
    """The newest whole checkpoint of the run with this key, or None."""
    for candidate in reversed(_finished(folder)):
        checkpoint = _load(candidate)
        if checkpoint is not None and checkpoint.state.get("key") == key:
            return checkpoint
    return None


def drop_checkpoints(folder: Path) -> None:
    """Remove all checkpoints: the training is finished, or another one begins."""
    shutil.rmtree(folder, ignore_errors=True)


def _finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _load(folder: Path) -> Checkpoint | None:
    try:
        sums = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if any(sha256_of(folder / name) != expected for name, expected in sums.items()):
            return None
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return Checkpoint(int(state["step"]), load_file(str(folder / "tensors.safetensors")), state)
    except (OSError, ValueError, KeyError):
        return None
