"""A grader in the place of a person: it scores every answer that is shown, and the scores are the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luthier.examples.example import Example, Message
from luthier.grade.score import Grader, grade_all
from luthier.ranking.questions import Question
from luthier.ranking.tasks import Task
from luthier.ranking.typed import Order


def rank_by_grader(
    grader: Grader, tasks: Sequence[Task], examples: Mapping[str, Example]
) -> list[tuple[str, Order]]:
    """What the grader says of each task: its scores in the order shown, and places from best to worst.

    Equal scores are ties. A task with an answer that stays unscored is skipped: its order is empty.

    Args:
        examples: by key of the question, with the reference answer; without one, the reference is empty.
    """
    cases = []
    for task in tasks:
        example = examples.get(task.question.key) or _unanswered(task.question)
        cases += [(task.question.by_id[key].text, example.answer, example) for key in task.shown]
    scores = iter(grade_all(grader, cases))
    said: list[tuple[str, Order]] = []
    for task in tasks:
        values = [next(scores).value for _ in task.shown]
        typed = " ".join("unscored" if value is None else f"{value:.4g}" for value in values)
        said.append((typed, _order([value for value in values if value is not None], len(values))))
    return said


def _order(values: Sequence[float], shown: int) -> Order:
    if len(values) < shown:
        return ()
    levels = sorted(set(values), reverse=True)
    return tuple(tuple(place for place, value in enumerate(values) if value == level) for level in levels)


def _unanswered(question: Question) -> Example:
    turns = (*question.messages, Message("assistant", ""))
    return Example(question.key, turns, question.where, 0, question.group, tools=question.tools)
