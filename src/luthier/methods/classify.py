"""Classification: which of some labels a request gets, from a head in the place of written answers.

With z the K outputs of the head at the last token of the prompt, and y the label:

    L = - sum_i w_y log softmax(z_i)_y / sum_i w_y

w is 1, or the `balanced` weight n / (K n_y) of scikit-learn, under which every label counts the same in
sum however rare it is. The prompt is the one that an answer would follow: the head starts from what the
model knew before its first word. Labels are those of the training answers, in alphabetical order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch.nn.functional import cross_entropy

from luthier.chat import ChatFormat
from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.methods.method import Item, Method, read_at_end
from luthier.models.heads import HeadKind

ClassWeights = Literal["equal", "balanced"]


@dataclass(frozen=True)
class Classify(Method):
    """Learns to tell labels apart.

    Attributes:
        labels: in the order of the head's outputs; empty until `settle` takes them from the training items.
        class_weights: one for each label, or what they are made from.
    """

    labels: tuple[str, ...] = ()
    class_weights: ClassWeights | tuple[float, ...] = "equal"

    name = "classify"
    needs_reference = False
    head: ClassVar[HeadKind] = "sequence"

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per example: its prompt, and its answer as the label.

        Raises:
            DataError: the chat template refuses a request, or a label is empty.
        """
        items = []
        for example in examples:
            request = chat.with_system(example.asked, system)
            try:
                prompt = chat.prompt(request)
            except DataError as error:
                raise DataError(error.message, where=example.where, fix=error.fix) from error
            items.append(Item(example.where, (read_at_end(prompt),), label=label_of(example)))
        return items

    def settle(self, items: Sequence[Item]) -> Classify:
        """With the labels of these items, where none are given, and with a weight for each.

        Raises:
            DataError: there is but one label, or one that is not among those given.
        """
        counts = Counter(item.label for item in items if item.label is not None)
        labels = self.labels or tuple(sorted(counts))
        if len(labels) < 2:
            raise DataError(
                f"{len(labels)} labels are too few: there is nothing to tell apart",
                where=items[0].where if items else None,
                fix="give the examples two labels or more as their answers",
            )
        for item in items:
            _place_of(item, labels)
        if self.class_weights != "balanced":
            return replace(self, labels=labels)
        total = counts.total()
        # a label that was given and is in no example has no say
        weights = (total / (len(labels) * counts[label]) if counts[label] else 0.0 for label in labels)
        return replace(self, labels=labels, class_weights=tuple(weights))

    def total(self, items: Sequence[Item]) -> float:
        """Summed weight of the labels."""
        weights = self._weights()
        return sum(weights[_place_of(item, self.labels)] for item in items)

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed weighted cross-entropy; `logps` are the outputs of the head, `[K]` for each prompt."""
        outputs, targets = self._outputs(items, logps)
        return cross_entropy(outputs, targets, weight=outputs.new_tensor(self._weights()), reduction="sum")

    def losses(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> list[float]:
        """Cross-entropy of each item, in nats, whatever its label weighs."""
        found: list[float] = cross_entropy(*self._outputs(items, logps), reduction="none").tolist()
        return found

    def _outputs(
        self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs `[N, K]` and places of the labels `[N]`."""
        outputs = torch.stack([own for (own,) in logps])
        if outputs.shape[1] != len(self.labels):
            raise ValueError(f"{outputs.shape[1]} outputs for {len(self.labels)} labels")
        places = [_place_of(item, self.labels) for item in items]
        return outputs, torch.tensor(places, device=outputs.device)

    def _weights(self) -> tuple[float, ...]:
        if self.class_weights == "equal":
            return (1.0,) * len(self.labels)
        if isinstance(self.class_weights, str) or len(self.class_weights) != len(self.labels):
            raise ValueError("no weight for each label: `settle` them by the training items first")
        return self.class_weights


def label_of(example: Example) -> str:
    """The answer as a label; DataError where it is empty."""
    label = example.answer.strip()
    if not label:
        raise DataError("the label is empty", where=example.where, fix="fill it in or remove the row")
    return label


def _place_of(item: Item, labels: Sequence[str]) -> int:
    """Which label an item has."""
    if item.label is None:
        raise ValueError("an item without a label: a classifier has nothing to imitate")
    if item.label not in labels:
        shown = ", ".join(labels[:10]) + (" ..." if len(labels) > 10 else "")
        raise DataError(
            f"the label {item.label[:80]!r} is not one of the training answers': {shown}",
            where=item.where,
            fix="correct it, or give the training side examples of it",
        )
    return labels.index(item.label)
