"""Preference rows: what most raters say of the answers to a prompt, as the preference methods read it.

An answer beats another where more than half of the raters who compared the two, or said what settles it, call
it better; a tie counts against both. Ties and pairs without such a majority are left out.

A row has one `chosen` answer, which none beats, and `rejected` ones that it beats, the best of them first:
each of them beats all after it. What has no place in such a list gets a row of its own, so every rejected
answer stands beside the chosen one exactly once. Where all beat each other in a ring, none is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from luthier.errors import DataError
from luthier.examples.formats import convert_row, recognise_format
from luthier.ranking.judgements import Judgement
from luthier.ranking.opinions import Opinion, closed, compare, stated
from luthier.ranking.questions import Question, as_rows

MARK = "agreed"  # a column that no other file of preferences has
Votes = dict[tuple[str, str], tuple[int, int]]


def preference_rows(
    questions: Sequence[Question], judgements: Sequence[Judgement]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows for training, and what became of the prompts. Only the first round of each rater counts.

    Returns:
        Rows of `prompt` (messages), `chosen`, `rejected` (a list), and for each rejected answer how many
        raters `agreed` of those (`raters`) who compared it with the chosen one; `key` of the question, and
        `tools` and `group` where it has any.
        Counts: `prompts` that have a row, `undecided` ones that were judged and have none, and answers
        (`unreadable`) left out because their text would be read as a transcript.
    """
    by_question: dict[str, dict[str, list[Judgement]]] = {}
    for judgement in judgements:
        if judgement.round == 1:
            raters = by_question.setdefault(judgement.question, {})
            raters.setdefault(judgement.rater, []).append(judgement)
    rows: list[dict[str, Any]] = []
    counts = {"prompts": 0, "undecided": 0, "unreadable": 0}
    for question in questions:
        opinions = [closed(stated(own)) for own in by_question.get(question.key, {}).values()]
        if not any(opinions):
            continue
        readable = {key for key in question.by_id if _reads_back(question, key)}
        counts["unreadable"] += len(question.by_id) - len(readable)
        found = _rows_of(question, _majorities(sorted(readable), opinions))
        counts["prompts" if found else "undecided"] += 1
        rows += found
    return rows, counts


def _majorities(answers: Sequence[str], opinions: Sequence[Opinion]) -> Votes:
    """Who beats whom, with the raters who say so and those who compared the two."""
    found: Votes = {}
    for a, b in permutations(answers, 2):
        said = [value for opinion in opinions if (value := compare(opinion, a, b)) is not None]
        if 2 * said.count(1) > len(said):
            found[a, b] = said.count(1), len(said)
    return found


def _rows_of(question: Question, beats: Votes) -> list[dict[str, Any]]:
    beaten = {b for _, b in beats}
    strength = {answer: sum(a == answer for a, _ in beats) for answer in question.by_id}
    rows = []
    for chosen in (answer for answer in question.by_id if strength[answer] and answer not in beaten):
        worse = [answer for answer in question.by_id if (chosen, answer) in beats]
        lists: list[list[str]] = []
        for answer in sorted(worse, key=lambda answer: -strength[answer]):
            fitting = (own for own in lists if all((better, answer) in beats for better in own))
            place = next(fitting, None)
            if place is None:
                lists.append([answer])
            else:
                place.append(answer)
        rows += [_row(question, chosen, own, beats) for own in lists]
    return rows


def _row(question: Question, chosen: str, rejected: Sequence[str], beats: Votes) -> dict[str, Any]:
    votes = [beats[chosen, answer] for answer in rejected]
    return {
        "prompt": as_rows(question.messages),
        "chosen": question.by_id[chosen].text,
        "rejected": [question.by_id[answer].text for answer in rejected],
        MARK: [agreed for agreed, _ in votes],
        "raters": [raters for _, raters in votes],
        "key": question.key,
        **question.columns,
    }


def _reads_back(question: Question, answer: str) -> bool:
    """Whether readers of preferences take the answer for what it is; a transcript has turns of its own."""
    text, prompt = question.by_id[answer].text, as_rows(question.messages)
    row: Mapping[str, Any] = {"prompt": prompt, "chosen": f"x{text}", "rejected": [text]}
    try:
        said = convert_row(recognise_format([row], where=question.where), row)
    except DataError:
        return False
    return said.rejected == (text,) and as_rows(said.messages[:-1]) == prompt
