"""What preference methods compare with: the log-probabilities of the model before training, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from luthier.pipeline.models import Models
from luthier.progress import Show

if TYPE_CHECKING:
    from luthier.methods import Item, Method

MICRO_TOKENS = 2048


def with_reference(
    models: Models, method: Method, items: Sequence[Item], show: Show, *, longest: int | None = None
) -> list[Item]:
    """The items, those with a preference with the base model's log-probabilities where the method asks.

    Call it before an adapter is attached: what the base model is now is the reference.

    Args:
        longest: the most tokens that the model takes; a mismatch of more is left out. A prompt and an answer
            that fit with their own can be too long together.
    """
    judged = [place for place, item in enumerate(items) if item.wanted]
    if not method.needs_reference or not judged:
        return list(items)
    from luthier.forest import score

    referred = list(items)
    for place in judged:
        referred[place] = _fitting(items[place], longest)
    sequences = [s.ids for place in judged for s in referred[place].sequences]
    needed = [row for place in judged for row in referred[place].flags]
    mismatches = [item.mismatch for item in referred if item.mismatch is not None]
    sequences += [mismatch.sequence.ids for mismatch in mismatches]
    needed += [mismatch.flags for mismatch in mismatches]
    with show.task("reference: base model's log-probabilities", len(sequences)) as advance:
        scored = score(
            models.base().model, sequences, needed=needed, max_tokens=MICRO_TOKENS, advance=advance
        )
    sums = iter([float(values.double().sum()) for values in scored])
    for place in judged:
        reference = tuple(next(sums) for _ in items[place].sequences)
        referred[place] = replace(referred[place], reference=reference)
    for place, item in enumerate(referred):
        if item.mismatch is not None:
            referred[place] = replace(item, mismatch=replace(item.mismatch, reference=next(sums)))
    return referred


def _fitting(item: Item, longest: int | None) -> Item:
    """The item, without a mismatch that the model cannot take."""
    if item.mismatch is None or longest is None or len(item.mismatch.sequence.ids) <= longest:
        return item
    return replace(item, mismatch=None)
