"""A training of a tiny random model: its items, its model of every kind, a run, and what came out of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from chat_tokenizers import byte_level
from tiny_models import tiny
from tiny_run import CHATML

from luthier.chat import TrainingSequence
from luthier.forest.logprobs import Model
from luthier.methods import SFT, Item
from luthier.models import LoadedModel, attach_adapter
from luthier.recipe import Adapter, Train
from luthier.train import Progress, train

RATES = {"lora": 3e-2, "rslora": 3e-2, "dora": 3e-2, "full": 3e-3, "prefix": 1e-1, "prompt": 1e-1}
NOT_EXACT = ("seconds", "memory_bytes", "tokens_per_second", "peak_memory_bytes")
Weights = dict[str, torch.Tensor]


def settings(**changes: Any) -> Train:
    """Two epochs of about eight steps each."""
    return Train(**({"epochs": 2, "learning_rate": 1e-2, "batch_tokens": 60} | changes))


def make_items(count: int = 14, *, seed: int = 0, start: int = 3) -> list[Item]:
    """Items of unequal lengths and shared prompts; two answers in every third."""
    choose = random.Random(seed)
    items = []
    for line in range(1, count + 1):
        prompt = [start, start + 1, start + 2 + line % 3]
        sequences = []
        for _ in range(1 + (line % 3 == 0)):
            answer = [choose.randrange(20, 60) for _ in range(choose.randrange(1, 12))]
            ids = (*prompt, *answer, 2)
            sequences.append(TrainingSequence(ids, (0.0,) * 3 + (1.0,) * (len(ids) - 3)))
        items.append(Item(f"data.jsonl:{line}", tuple(sequences)))
    return items


def make_model(kind: str = "lora", **overrides: Any) -> Model:
    """A tiny Llama, ready to be trained as `kind` says."""
    tokenizer = None
    if kind in ("prefix", "prompt"):  # they start from a text
        tokenizer = byte_level(CHATML, ("<|im_start|>", "<|im_end|>"))
        overrides = {"vocab_size": len(tokenizer)} | overrides
    loaded = LoadedModel(tiny("llama", **overrides).requires_grad_(False), tokenizer, "tiny")  # type: ignore[arg-type]
    return attach_adapter(loaded, Adapter(kind=kind, rank=4, virtual_tokens=3), seed=7)  # type: ignore[arg-type]


def trainable(model: Model) -> Weights:
    """A copy of what is trained."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def equal(a: Weights, b: Weights) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(folder: Path, *, model: Model | None = None, **changes: Any) -> tuple[Model, dict[str, Any]]:
    """Train with what is usual here, but for the changes; returns the model and the summary."""
    model = make_model() if model is None else model
    given: dict[str, Any] = {
        "method": SFT(),
        "items": make_items(),
        "validation": make_items(4, seed=9),
        "settings": settings(),
        "seed": 1,
        "key": "k",
    }
    given |= changes
    given.setdefault("peak", given["settings"].learning_rate)
    return model, train(model, folder=folder, **given)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[dict[str, Any]]:
    """The lines of `losses.jsonl`."""
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def measured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without clocks and memory."""
    return [{k: v for k, v in row.items() if k not in NOT_EXACT} for row in rows]


def outcome(folder: Path, trained: tuple[Model, dict[str, Any]]) -> tuple[Weights, list[Any], dict[str, Any]]:
    """All that must not depend on whether a run was interrupted: weights, metrics and losses, summary."""
    model, summary = trained
    return trainable(model), measured(metrics(folder)) + losses(folder), measured([summary])[0]


def same(a: tuple[Weights, list[Any], Any], b: tuple[Weights, list[Any], Any]) -> bool:
    """Whether two outcomes are equal bit for bit."""
    return equal(a[0], b[0]) and a[1:] == b[1:]


class Crash(Exception):  # noqa: N818
    """The power cord."""


def crash_at(step: int) -> Callable[[Progress], None]:
    """A `show` that pulls it."""

    def show(progress: Progress) -> None:
        if progress.step == step:
            raise Crash

    return show
