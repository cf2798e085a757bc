"""Two tiny models and a few examples for probes to measure, and a quick way to overfit one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from luthier.chat import ChatFormat, TrainingSequence
from luthier.examples import Example, Split
from luthier.examples.example import Message
from luthier.forest import logprobs
from luthier.probes import Evidence, Side, Subjects, Which


def example(number: int, request: str, answer: str, side: str = "train") -> Example:
    """One turn each; ids differ by side."""
    turns = (Message("user", request), Message("assistant", answer))
    return Example(f"{side}-{number}", turns, "made_up.jsonl", number)


def split_of(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]]) -> Split:
    """Requests and answers as a split without a validation side."""
    sides = {"train": train, "test": test}
    made = {
        side: tuple(example(i, *pair, side) for i, pair in enumerate(pairs)) for side, pairs in sides.items()
    }
    return Split(train=made["train"], validation=(), test=made["test"])


def subjects(
    models: dict[Which, Any], chat: ChatFormat, split: Split, *, canaries: int = 0, new: int = 8
) -> Subjects:
    """What a probe measures with, without bars and without a system prompt."""

    @contextlib.contextmanager
    def open_side(which: Which, what: str, total: int) -> Iterator[Side]:
        seen = []
        yield Side(models[which], chat, None, lambda done, *_, **__: seen.append(done))
        assert sum(seen) in (0, total), f"{what}: {sum(seen)} of {total}"  # 0: it was kept

    return Subjects(
        split=split,
        chat=chat,
        identity="tiny",
        system=None,
        max_new_tokens=new,
        items=8,
        canaries=canaries,
        seed=0,
        open=open_side,
    )


def evidence(split: Split, margin: float | None = 0.05) -> Evidence:
    """Answers are right or wrong, letter for letter; an answer of `?` cannot be scored."""

    def grade(cases: Sequence[tuple[str, Example]]) -> list[float | None]:
        return [None if answer == "?" else float(answer == case.answer) for answer, case in cases]

    return Evidence(split, margin, 0, 8, grade)


def fitted(model: Any, sequences: Sequence[TrainingSequence], *, steps: int = 60) -> Any:
    """A copy of the model, all weights trained on the sequences until it knows them."""
    copied = copy.deepcopy(model).requires_grad_(True)
    optimizer = torch.optim.Adam(copied.parameters(), lr=5e-3)
    needed = [[weight > 0 for weight in sequence.weights[1:]] for sequence in sequences]
    for _ in range(steps):
        values = torch.cat(logprobs(copied, [sequence.ids for sequence in sequences], needed=needed))
        optimizer.zero_grad()
        (-values.mean()).backward()
        optimizer.step()
    return copied.requires_grad_(False).eval()
