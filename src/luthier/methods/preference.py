"""What the preference methods share: pairs of answers to one prompt, and what is only imitated beside them.

Legend: N pairs, log-probabilities of an answer are sums over its tokens and its terminator.

An item is a pair, whose prompt the forest computes once. Items without a preference (replay against
forgetting, canaries) count as one pair each, with their mean negative log-likelihood per token as the loss:

    L = (sum over pairs of the method's loss + sum over the others of their mean NLL) / (all items)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.methods.method import Item, refuse_unwanted

Logps = Sequence[Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Pairs:
    """N pairs; every tensor is `[N]`, of the log-probabilities' dtype.

    Attributes:
        chosen, rejected: log-probabilities of the answers, with gradients.
        reference_chosen, reference_rejected: the same before training; zeros where there is no reference.
        chosen_tokens, rejected_tokens: lengths of the answers.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor


def pair_items(examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
    """One item for each rejected answer, the chosen one first.

    Raises:
        DataError: an example rejects no answer, or its own answer should not be given.
    """
    refuse_unwanted(examples)
    items = []
    for example in examples:
        if not example.rejected:
            raise DataError(
                "there is no rejected answer, so nothing is preferred",
                where=example.where,
                fix="write prompt, chosen and rejected; or use `method: sft`, or `method: kto` for answers "
                "that are judged one by one",
            )
        chosen, *worse = answer_sequences(example, [example.answer, *example.rejected], chat, system)
        items += [Item(example.where, (chosen, rejected), wanted=(True, False)) for rejected in worse]
    return items


def answer_sequences(
    example: Example, answers: Sequence[str], chat: ChatFormat, system: str | None
) -> list[TrainingSequence]:
    """Answers to the request of an example, with the very same tokens of the prompt before each.

    Raises:
        DataError: as `ChatFormat.sequence`, with the example's place.
    """
    request = chat.with_system(example.asked, system)
    try:
        return [chat.sequence(request, answer) for answer in answers]
    except DataError as error:
        raise DataError(error.message, where=example.where, fix=error.fix) from error


def gather_pairs(items: Sequence[Item], logps: Logps, *, reference: bool) -> Pairs | None:
    """The pairs among the items; None where there are none.

    Raises:
        ValueError: with `reference`, a pair has none: it is never taken for 0.
    """
    found = [(item, values) for item, values in zip(items, logps, strict=True) if item.wanted]
    if not found:
        return None
    like = found[0][1][0]

    def numbers(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)

    references = [item.reference if reference else (0.0, 0.0) for item, _ in found]
    if not all(references):
        raise ValueError("a pair without the reference's log-probabilities")
    return Pairs(
        chosen=torch.stack([chosen.sum() for _, (chosen, _) in found]),
        rejected=torch.stack([rejected.sum() for _, (_, rejected) in found]),
        reference_chosen=numbers([chosen for chosen, _ in references]),
        reference_rejected=numbers([rejected for _, rejected in references]),
        chosen_tokens=numbers([float(len(chosen)) for _, (chosen, _) in found]),
        rejected_tokens=numbers([float(len(rejected)) for _, (_, rejected) in found]),
    )


def imitation_loss(items: Sequence[Item], logps: Logps) -> torch.Tensor:
    """Sum over the items without a preference of their weighted mean negative log-likelihood, a scalar."""
    loss = logps[0][0].new_zeros(())
    for item, sequences in zip(items, logps, strict=True):
        if not item.wanted:
            values = torch.cat(list(sequences))
            weights = torch.tensor(item.weights, dtype=values.dtype, device=values.device)
            loss = loss - (values * weights).sum() / weights.sum()
    return loss
