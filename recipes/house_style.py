"""The house style of Fernhill, a shop for garden tools, as rules that can be checked."""

from __future__ import annotations

import re
from typing import Any

LONGEST = 50  # words
BRIEF, NO_LONGER_BRIEF = 10, 60  # words
OPENING = re.compile(r"Hello( [^,!?]{1,30})?, ")
FIRST_PERSON = re.compile(r"\b(I|I'm|I'll|I've|me|my|mine)\b")
EXCUSES = re.compile(r"sorry|apolog|unfortunat|regret", re.IGNORECASE)
NEXT_STEP = re.compile(r"\b(we will|you can)\b", re.IGNORECASE)
CONTENT_WORD = re.compile(r"[^\W\d_]{4,}|\d+")
COMMON = {  # words of replies on any matter
    *("hello", "yours", "fernhill", "will", "that", "this", "with", "your", "from", "have", "they", "them"),
    *("when", "what", "today", "tomorrow", "week", "days", "send", "post", "order", "free", "time", "ours"),
    *("more", "than", "takes", "take", "into", "every", "there", "should", "were", "been"),
}
ABOUT = 0.2  # replies on different matters share a sixtieth on average


def house_style(answer: str, reference: str, example: dict[str, Any]) -> dict[str, Any]:
    """The share of seven rules that a reply keeps; `example` is not looked at."""
    text = answer.strip()
    rules = {
        "opens with Hello": OPENING.match(text) is not None,
        "signed Yours, Fernhill": text.endswith("Yours, Fernhill"),
        "we, never I": text != "" and FIRST_PERSON.search(text) is None,
        "no excuses, no exclamation": text != "" and "!" not in text and EXCUSES.search(text) is None,
        "says what happens next": NEXT_STEP.search(text) is not None,
        "one to fifty words": 0 < len(text.split()) <= LONGEST,
        "answers this request": shared_words(text, reference) >= ABOUT,
    }
    broken = [name for name, kept in rules.items() if not kept]
    reason = f"breaks: {', '.join(broken)}" if broken else None
    return {"score": 1 - len(broken) / len(rules), "reason": reason, "rules": rules}


def brief_house_style(answer: str, reference: str, example: dict[str, Any]) -> dict[str, Any]:
    """What readers of such replies prefer: the rules kept, times brevity: 1 to ten words, 0 from sixty."""
    told = house_style(answer, reference, example)
    words = len(answer.split())
    brevity = min(1.0, max(0.0, (NO_LONGER_BRIEF - words) / (NO_LONGER_BRIEF - BRIEF)))
    reason = "; ".join(filter(None, (told["reason"], f"{words} words" if brevity < 1 else None)))
    return {"score": told["score"] * brevity, "reason": reason or None, "rules": told["rules"]}


def shared_words(answer: str, reference: str) -> float:
    """The share of the reference's longer words and numbers that the answer has too."""
    wanted, given = (set(CONTENT_WORD.findall(text.casefold())) - COMMON for text in (reference, answer))
    return len(wanted & given) / len(wanted) if wanted else 1.0
