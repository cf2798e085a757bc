"""Questions and judgements made up for tests: answers are single letters, typed as a rater would."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.examples.example import Message
from luthier.ranking.judgements import Judgement
from luthier.ranking.questions import Offered, Question
from luthier.ranking.typed import parse_pair, parse_ranks


def question(prompt: str = "Where?", answers: Sequence[str] = "ABC", group: str | None = None) -> Question:
    """A question whose answers are these texts."""
    return Question((Message("user", prompt),), tuple(map(Offered, answers)), "made up:1", group)


def id_of(text: str) -> str:
    """The id of an answer."""
    return Offered(text).id


def judged(about: Question, typed: str, rater: str = "anna", round_: int = 1, shown: str = "") -> Judgement:
    """What a rater typed when the answers stood as in `shown` (as in the question, where that is empty)."""
    texts = list(shown) or [answer.text for answer in about.answers]
    ids = tuple(map(id_of, texts))
    order = () if typed == "s" else parse_pair(typed) if typed in "ab=" else parse_ranks(typed, len(ids))
    said = tuple(tuple(ids[place] for place in level) for level in order)
    return Judgement(about.key, rater, round_, ids, said, typed, "2026-01-01T00:00:00+00:00", 1.5, 0, None)
