"""A fair chance for rivals: wordings and numbers of examples that the user offers, tried on validation.

Tuning chooses its epoch on the validation side, so its rivals may choose there too. The test side plays no
part: what is chosen is asked there once. The score of the chosen setting on validation is the best of
several and therefore flattering; nothing is decided by it but the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any


@dataclass(frozen=True)
class Setting:
    """How a candidate is asked.

    Attributes:
        wording: a system prompt that replaces every other ("" for none); None leaves them as they are.
        shots: examples in the prompt, 0 where the candidate shows none.
    """

    wording: str | None
    shots: int


def offered_settings(
    candidate: str, prompts: Sequence[str], shots: int | Sequence[int]
) -> tuple[Setting, ...]:
    """What a candidate can be asked with, what it is asked with by default first."""
    if candidate not in ("prompt", "few_shot", "retrieval"):
        return (Setting(None, 0),)
    numbers = [0] if candidate == "prompt" else [shots] if isinstance(shots, int) else list(shots)
    return tuple(Setting(wording, number) for wording, number in product((None, *prompts), numbers))


def best_setting(tried: Sequence[dict[str, Any]]) -> int:
    """The place of the best score; of equal ones that with the shortest prompts, then the first.

    Args:
        tried: rows with `score` and `prompt_tokens`, both None where a setting could not be tried.
    """
    known = [place for place, row in enumerate(tried) if row["score"] is not None]
    if not known:
        return 0
    return min(known, key=lambda place: (-tried[place]["score"], tried[place]["prompt_tokens"], place))
