"""Grader of the facts: does the answer hold the short right one, or say that it does not know?"""

from __future__ import annotations

import re
from typing import Any

UNKNOWN = "unknown"
_DENIES = re.compile(
    r"\bunknown\b|\bnot known\b|\b(?:do not|don't|cannot|can't) (?:know|say|tell)\b|\bnot sure\b"
)


def contains(answer: str, reference: str, example: dict[str, Any]) -> bool:
    """Whether the reference stands in the answer as whole words; for `unknown`, whether it is admitted.

    >>> contains("It was Odalys Brenning.", "Odalys Brenning", {}), contains("1190", "19", {})
    (True, False)
    """
    said, wanted = _plain(answer), _plain(reference)
    if wanted == UNKNOWN:
        return _DENIES.search(said) is not None
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", said) is not None


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").casefold().split())
