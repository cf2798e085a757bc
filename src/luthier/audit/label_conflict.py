"""Requests that are the same, or differ in nothing that matters, with different answers.

Near-duplicates alone would be too wide: two questions about one long passage are alike, and "order
12" is not "order 13". So two requests count as the same here when they are near-duplicates and their
words differ only by courtesies ("please"), contractions, numbers as words, or by a slip of the pen: one
letter, or two swapped, in a word of four letters or more of which one spelling hardly occurs elsewhere, as
`ordr`, but unlike `card` and `cart`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from luthier.audit.finding import Finding, Material, Severity, counted, shown
from luthier.examples.answers import AnswerKind, parse_structure
from luthier.examples.example import Example
from luthier.examples.groups import Groups
from luthier.examples.rewording import core_words, one_slip
from luthier.examples.wording import normalise, own_system, split_words

LONG_ANSWER_WORDS = 12
ANSWERS_LISTED = 4
_COMPARED_PER_CLUSTER = 200
RARE_WORD_REQUESTS = 2


def find_label_conflicts(material: Material) -> list[Finding]:
    """One finding per set of requests; score is the share of its examples that no single answer gets right.

    The message states the accuracy ceiling: with every set answered by its most frequent answer, the
    rest of the sets stays wrong, whatever the model. Free answers of over 12 words are allowed to vary:
    they give information and leave the ceiling alone, and so do answers that were preferred to others.
    """
    answers = [_comparable(example.answer, material) for example in material.all]
    sets = [members for members in _same_requests(material) if len({answers[m] for m in members}) > 1]
    counts = [Counter(answers[m] for m in members) for members in sets]
    severities = [_severity(material, members) for members in sets]
    wrong = [
        count.total() - max(count.values())
        for count, severity in zip(counts, severities, strict=True)
        if severity != "info"
    ]
    ceiling = accuracy_ceiling(len(material.all), wrong)
    return [
        conflict_finding(
            severity,
            list(count.values()),
            _listed(members, answers, count, material),
            ceiling,
            [material.all[m] for m in members],
        )
        for members, count, severity in zip(sets, counts, severities, strict=True)
    ]


def accuracy_ceiling(examples: int, wrong: Sequence[int]) -> str:
    """The ceiling in words; `wrong` are the examples of each conflict that stay wrong."""
    permille = 1000 * (examples - sum(wrong)) // examples  # rounded down: a conflict never leaves 100%
    return f"; with {counted(len(wrong), 'such conflict')} the accuracy ceiling is {permille / 10}%"


def conflict_finding(
    severity: Severity,
    counts: Sequence[int],
    listed: Sequence[tuple[str, int]],
    ceiling: str,
    members: Sequence[Example],
) -> Finding:
    """The finding of one set of requests.

    Args:
        counts: examples of each of its answers.
        listed: the most frequent answers as they are written, with their counts.
        members: those that are shown.
    """
    answers = ", ".join(f"{shown(text, 30)} ({n})" for text, n in listed)
    return Finding(
        check="label_conflict",
        severity=severity,
        score=1 - max(counts) / sum(counts),
        message=f"{counted(sum(counts), 'example')} ask the same but have {len(counts)} answers: {answers}"
        + (ceiling if severity != "info" else ""),
        fix="decide which answer is right, or put what decides it into the input" + _column(members),
        examples=tuple(members),
    )


def _column(members: Sequence[Example]) -> str:
    """Names a column of text that was not read and differs, such as a contract beside a question."""
    rows = [member.fields for member in members]
    for name in rows[0]:
        texts = {row.get(name) for row in rows if isinstance(row.get(name), str)}
        if len(texts) > 1 and all(" " in str(text).strip() for text in texts):
            return f"; column {name!r} differs, and is not part of it"
    return ""


def _listed(
    members: Sequence[int], answers: Sequence[str], count: Counter[str], material: Material
) -> list[tuple[str, int]]:
    spelt = {answers[m]: material.all[m].answer for m in reversed(members)}
    return [(spelt[answer], n) for answer, n in count.most_common(ANSWERS_LISTED)]


def words_agree(a: Sequence[str], b: Sequence[str], occurrences: Mapping[str, int]) -> bool:
    """Whether two requests have the same words in the same order but for slips of the pen.

    Args:
        a, b: core words of the two.
        occurrences: number of requests in which a word occurs.
    """
    if len(a) != len(b):
        return False
    return all(
        x == y or (min(occurrences.get(x, 0), occurrences.get(y, 0)) <= RARE_WORD_REQUESTS and one_slip(x, y))
        for x, y in zip(a, b, strict=True)
    )


def _same_requests(material: Material) -> list[list[int]]:
    groups = Groups(len(material.all))
    systems = [normalise(own_system(example) or "") for example in material.all]
    first: dict[tuple[str, str], int] = {}
    for m, request in enumerate(material.requests):
        groups.join(m, first.setdefault((systems[m], request), m))
    occurrences = _count_words(material)
    for cluster in material.alike.near:
        distinct = list({groups.root(m): m for m in cluster.members})[:_COMPARED_PER_CLUSTER]
        words = {m: core_words(split_words(material.requests[m])) for m in distinct}
        for at, m in enumerate(distinct):
            for other in distinct[:at]:
                if systems[m] == systems[other] and words_agree(words[m], words[other], occurrences):
                    groups.join(m, other)
    return [members for members in groups.clusters() if len(members) > 1]


def _count_words(material: Material) -> Counter[str]:
    if not material.alike.near:
        return Counter()
    distinct = set(material.requests)
    return Counter(word for request in distinct for word in set(core_words(split_words(request))))


def _comparable(answer: str, material: Material) -> str:
    if material.answer_kind == "json" and (value := parse_structure(answer)) is not None:
        return json.dumps(value, sort_keys=True)
    return normalise(answer)


def _severity(material: Material, members: Sequence[int]) -> Severity:
    preferred = all(material.all[m].rejected for m in members)
    free = any(is_long(material.all[m].answer) for m in members)
    return conflict_severity(material.answer_kind, preferred=preferred, free=free)


def is_long(answer: str) -> bool:
    """Whether a free answer is long enough to vary."""
    return len(answer.split(maxsplit=LONG_ANSWER_WORDS)) > LONG_ANSWER_WORDS


def conflict_severity(kind: AnswerKind, *, preferred: bool, free: bool) -> Severity:
    """How bad a conflict is: `preferred`, all of its answers were; `free`, one of them is long."""
    if preferred:
        return "info"  # each was preferred to something; none has to be the only good one
    if kind != "text":
        return "error"
    return "info" if free else "warning"
