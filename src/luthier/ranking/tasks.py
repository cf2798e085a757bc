"""What is asked of a rater, and in which order the answers are shown.

*Ranking*: all answers to a prompt at once, shuffled for each rater and prompt.

*Pairwise*: the answers to a prompt stand in a row, shuffled for each prompt and the same for all raters, so
that they judge the same pairs. Neighbours are compared, the first with the second, the second with the
third: k - 1 questions for k answers. Which of the two is shown first is drawn for each rater. What follows
is taken as said (a > b and b > c give a > c); pairs of which nothing follows stay open (a > b and b < c leave
a and c). A row cannot contradict itself.

Raters get the prompts in the same order, so that what several have judged overlaps when one stops early.
Some prompts are asked again after all others: who says the same twice?
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise as neighbours

from luthier.ranking.judgements import Judgement
from luthier.ranking.questions import Question


@dataclass(frozen=True)
class Task:
    """One thing to ask: the answers `shown`, by id and in this order."""

    question: Question
    round: int
    shown: tuple[str, ...]


def plan_tasks(
    questions: Sequence[Question],
    own: Sequence[Judgement],
    *,
    rater: str,
    seed: int,
    pairwise: bool = False,
    repeat: float = 0.0,
) -> list[Task]:
    """All that is asked of a rater, said already or not.

    Args:
        own: what the rater said so far; what was skipped is not asked again.
        repeat: share of the questions that are asked a second time.
    """

    def tasks_of(question: Question, round_: int) -> list[Task]:
        orders = _pairs(question, rater, seed, round_) if pairwise else [_all(question, rater, seed, round_)]
        return [Task(question, round_, shown) for shown in orders]

    drawn = sorted(questions, key=lambda question: _draw(f"{seed}/{rater}/{question.key}/again"))
    again = {question.key for question in drawn[: int(repeat * len(questions) + 0.5)]}
    first = [task for question in questions for task in tasks_of(question, 1)]
    second = [task for question in questions if question.key in again for task in tasks_of(question, 2)]
    skipped = [judgement for judgement in own if not judgement.order]
    return first + [task for task in second if not _covered(task, skipped, round_=1)]


def open_tasks(tasks: Iterable[Task], own: Sequence[Judgement]) -> list[Task]:
    """Those that the rater has said nothing of; a ranking says something of all its pairs."""
    by_question: dict[str, list[Judgement]] = {}
    for judgement in own:
        by_question.setdefault(judgement.question, []).append(judgement)
    return [
        task
        for task in tasks
        if not _covered(task, by_question.get(task.question.key, ()), round_=task.round)
    ]


def _covered(task: Task, judgements: Iterable[Judgement], *, round_: int) -> bool:
    return any(
        judgement.question == task.question.key
        and judgement.round == round_
        and set(task.shown) <= set(judgement.shown)
        for judgement in judgements
    )


def _all(question: Question, rater: str, seed: int, round_: int) -> tuple[str, ...]:
    shown = sorted(question.by_id)
    random.Random(f"{seed}/{rater}/{question.key}/{round_}").shuffle(shown)
    return tuple(shown)


def _pairs(question: Question, rater: str, seed: int, round_: int) -> list[tuple[str, ...]]:
    row = sorted(question.by_id)
    random.Random(f"{seed}/{question.key}/row").shuffle(row)
    sides = random.Random(f"{seed}/{rater}/{question.key}/{round_}/sides")
    return [(a, b) if sides.random() < 0.5 else (b, a) for a, b in neighbours(row)]


def _draw(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
