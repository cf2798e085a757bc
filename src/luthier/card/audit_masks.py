"""Which tokens of an example are trained, as the page shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from luthier.audit import Finding
from luthier.card.audit_groups import place_of
from luthier.card.masked import Masked
from luthier.errors import DataError, ModelError
from luthier.examples.example import Example

if TYPE_CHECKING:
    from luthier.chat import ChatFormat, TrainingSequence

FIRST_SHOWN = 20
MOST_SHOWN = 300
OF_INTEREST = ("truncation", "special_token")
_STRUCTURE = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")  # added tokens that are no words
_HEAD, _TAIL = 700, 400  # characters kept of a long stretch


@dataclass(frozen=True)
class Stretch:
    """Text that is trained or not, written by the template's control tokens or not."""

    text: str
    trained: bool
    control: bool


@dataclass(frozen=True)
class Mask:
    """An example as the model sees it.

    Attributes:
        why: the check for which it is shown; empty for one of the first examples.
        refused: why there is nothing to show; empty when there is.
        trained, tokens: how many tokens of how many.
    """

    place: str
    why: str
    refused: str
    trained: int
    tokens: int
    stretches: tuple[Stretch, ...]


def read_masks(
    examples: Sequence[Example],
    findings: Sequence[Finding],
    chat: ChatFormat,
    system: str | None,
    most_bytes: int,
) -> tuple[list[Mask], int]:
    """Masks of the first examples and of those with findings of interest; and how many are left out.

    Args:
        system: given to examples without their own.
        most_bytes: for all of them on the page.
    """
    why = {e.where: f.check for f in findings if f.check in OF_INTEREST for e in f.examples}
    chosen = {e.where: e for e in examples[:FIRST_SHOWN]}
    chosen |= {e.where: e for f in findings if f.check in OF_INTEREST for e in f.examples}
    masks: list[Mask] = []
    used = 0
    for example in list(chosen.values())[:MOST_SHOWN]:
        masks.append(_mask(example, why.get(example.where, ""), chat, system))
        used += sum(len(escape(stretch.text).encode()) + 40 for stretch in masks[-1].stretches) + 400
        if used > most_bytes:
            break
    return masks, len(chosen) - len(masks)


def _mask(example: Example, why: str, chat: ChatFormat, system: str | None) -> Mask:
    masked = Masked([*example.texts, system or ""])
    try:
        sequences = sequences_of(example, chat, system)
    except DataError as error:
        return Mask(place_of(example), why, masked.hide(error.message), 0, 0, ())
    ids, flags = _joined(sequences)
    added = chat.tokenizer.added_tokens_decoder.items()
    control = {i for i, token in added if token.special or _STRUCTURE.fullmatch(token.content)}
    stretches = []
    pairs = zip(ids, flags, strict=True)
    for (trained, is_control), run in groupby(pairs, key=lambda pair: (pair[1], pair[0] in control)):
        text = str(chat.tokenizer.decode([i for i, _ in run], clean_up_tokenization_spaces=False))
        stretches.append(Stretch(_shortened(masked.hide(text)), trained, is_control))
    return Mask(place_of(example), why, "", sum(flags), len(ids), tuple(stretches))


def sequences_of(example: Example, chat: ChatFormat, system: str | None) -> list[TrainingSequence]:
    """What of an example is trained: a conversation by the model's template, a text as it is.

    Raises:
        DataError: the template refuses it, nothing of it is trained, or it holds half a character.
    """
    try:
        "".join([*example.texts, system or ""]).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a character, {error.object[error.start]!r}, which no tokenizer reads",
            where=example.where,
            fix="remove it: one half of a surrogate pair means nothing",
        ) from None
    try:
        return chat.training(example, system) if example.request else [chat.text(example.answer)]
    except ModelError as error:
        raise DataError(error.message, where=example.where, fix=error.fix) from error


def _joined(sequences: Sequence[TrainingSequence]) -> tuple[tuple[int, ...], list[bool]]:
    """The longest sequence, with what is trained in the others that it begins with."""
    last = max(sequences, key=lambda sequence: len(sequence.ids))
    flags = [weight > 0 for weight in last.weights]
    for other in sequences:
        if last.ids[: len(other.ids)] == other.ids:
            flags = [flag or (t < len(other.ids) and other.weights[t] > 0) for t, flag in enumerate(flags)]
    return last.ids, flags


def _shortened(text: str) -> str:
    left_out = len(text) - _HEAD - _TAIL
    if left_out <= 100:
        return text
    return f"{text[:_HEAD]} … ({left_out:,} more characters) … {text[-_TAIL:]}"
