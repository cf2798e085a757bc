"""Continued pre-training on plain text (domain adaptation: Gururangan et al. 2020, arXiv 2004.10964).

    L = - sum over texts i and their tokens t of log p(x_it | x_i<t) / all tokens

That is SFT's loss (`sft.py`) without a prompt: every token of a text counts, and its end as well. A text is
read behind the start of a document, so that its first token is predicted too. Long texts are cut into pieces
of at most `block` tokens. A piece begins with the last token of the one before (and with the start of a
document where the tokenizer always writes one), of weight 0: every token is trained once, whatever the cut.

Pieces are packed by the token budget like all items, and none attends to another, as concatenated texts
often do. What it should bring is a lower perplexity on texts like these, and what it may cost is measured
beside: perplexity on the base's own words (the probe `own_text`), and public tasks (`forgetting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.methods.method import Item, Method
from luthier.methods.sft import SFT


def cut_text(text: TrainingSequence, *, block: int, start: int | None = None) -> list[TrainingSequence]:
    """Pieces of at most `block` tokens that train each trained token of `text` once.

    Args:
        text: a first token of weight 0, then trained ones.
        block: at least 3.
        start: an id that goes before every piece but the first, which has it already; None for no such id.
    """
    pieces = []
    first = 1
    while first < len(text.ids):
        head = (text.ids[first - 1],) if first == 1 or start is None else (start, text.ids[first - 1])
        last = first + block - len(head)
        weights = (0.0,) * len(head) + text.weights[first:last]
        pieces.append(TrainingSequence((*head, *text.ids[first:last]), weights))
        first = last
    return pieces


@dataclass(frozen=True)
class CPT(Method):
    """Learns to write texts like those it reads."""

    block: int = 1024

    name = "cpt"
    needs_reference = False

    def within(self, longest: int | None) -> CPT:
        """The same with pieces that a model of this context can take."""
        return self if longest is None else replace(self, block=min(self.block, longest))

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per piece of a text; `system` plays no part.

        Raises:
            DataError: an example is a conversation, or blank.
        """
        return [Item(example.where, (piece,)) for example in examples for piece in self.pieces(example, chat)]

    def pieces(self, example: Example, chat: ChatFormat) -> list[TrainingSequence]:
        """A text as it is trained on and measured. Raises as `items`."""
        if example.request:
            raise DataError(
                "this is a conversation, and cpt learns plain text",
                where=example.where,
                fix='use `method: sft`, or write rows with only "text"',
            )
        try:
            whole = chat.text(example.answer)
        except DataError as error:
            raise DataError(error.message, where=example.where, fix=error.fix) from error
        return cut_text(whole, block=self.block, start=chat.text_start)

    def total(self, items: Sequence[Item]) -> float:
        """Summed weight of the trained tokens."""
        return SFT().total(items)

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Weighted sum of negative log-likelihoods, float32 scalar."""
        return SFT().loss(items, logps)

    def losses(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> list[float]:
        """Mean negative log-likelihood of each piece, in nats per token."""
        return SFT().losses(items, logps)
