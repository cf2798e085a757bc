"""Answers that are judged good or bad one by one, each with a mismatch: what KTO is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example, Message
from luthier.methods.method import Item, Mismatch
from luthier.methods.preference import Logps, answer_sequences


@dataclass(frozen=True)
class Answers:
    """N judged answers; every tensor is `[N]`, of the log-probabilities' dtype.

    Attributes:
        policy: log-probabilities of the answers, with gradients.
        reference: the same before training.
        baseline: `Item.baseline`.
        sign: 1 for an answer to give, -1 for one not to give.
    """

    policy: torch.Tensor
    reference: torch.Tensor
    baseline: torch.Tensor
    sign: torch.Tensor


def judged_items(examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
    """One item per answer, the rejected ones too; each with a mismatch where there is another request.

    The k-th answer to a request gets the k-th one (in turns) to the request before it, so that the
    mismatched answers are those of the examples. Baselines are 0, as before training.

    Raises:
        DataError: as `ChatFormat.sequence`, with the example's place.
    """
    answers: dict[tuple[Message, ...], list[str]] = defaultdict(list)
    for example in examples:
        answers[example.request] += [example.answer, *example.rejected]
    requests = list(answers)
    before = dict(zip(requests, [requests[-1], *requests[:-1]], strict=True)) if len(requests) > 1 else {}
    taken: dict[tuple[Message, ...], int] = defaultdict(int)
    items = []
    for example in examples:
        others = answers[before[example.request]] if before else []
        for place, text in enumerate((example.answer, *example.rejected)):
            other = others[taken[example.request] % len(others)] if others else None
            taken[example.request] += 1
            own, *rest = answer_sequences(example, [text] if other is None else [text, other], chat, system)
            items.append(
                Item(
                    example.where,
                    (own,),
                    wanted=(example.wanted and place == 0,),
                    mismatch=Mismatch(rest[0]) if rest else None,
                    baseline=0.0,
                )
            )
    return items


def gather_answers(items: Sequence[Item], logps: Logps) -> Answers | None:
    """The judged answers among the items; None where there are none.

    Raises:
        ValueError: one has no reference or no baseline: neither is ever taken for 0.
    """
    found = [(item, values) for item, values in zip(items, logps, strict=True) if item.wanted]
    if not found:
        return None
    like = found[0][1][0]
    references, baselines, signs = [], [], []
    for item, _ in found:
        if not item.reference or item.baseline is None:
            raise ValueError("an answer without the reference's log-probability, or without a baseline")
        (wanted,), (reference,) = item.wanted, item.reference
        references.append(reference)
        baselines.append(item.baseline)
        signs.append(1.0 if wanted else -1.0)

    def numbers(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)

    return Answers(
        policy=torch.stack([own.sum() for _, (own,) in found]),
        reference=numbers(references),
        baseline=numbers(baselines),
        sign=numbers(signs),
    )
