"""Whether a request was asked before: to the letter, or nearly so."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.collect.log_turns import Turn
from luthier.examples.duplicates import find_near_duplicates
from luthier.examples.wording import normalise

EXACT = "asked before in the same words"
NEAR = "nearly the same as what was asked before"


def asked_text(request: Sequence[Turn]) -> str:
    """What is asked, normalised as `wording.request_text` does it."""
    return normalise("\n".join(turn["content"] for turn in request if turn["role"] != "system"))


def find_known(known: Sequence[str], new: Sequence[str]) -> dict[int, str]:
    """Which of the new texts were asked before, by known ones or by earlier new ones, and how.

    Args:
        known, new: normalised texts.
    """
    seen = set(known)
    found: dict[int, str] = {}
    for position, text in enumerate(new):
        if text in seen:
            found[position] = EXACT
        seen.add(text)
    for cluster in find_near_duplicates([*known, *new]):
        before = cluster.members[0] < len(known)
        fresh = [member - len(known) for member in cluster.members if member >= len(known)]
        for position in fresh if before else fresh[1:]:
            found.setdefault(position, NEAR)
    return found
