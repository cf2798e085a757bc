"""Requests that are the same, or differ in nothing that matters, with different answers.

Near-duplicates alone would be too wide: two questions about one long passage are alike, and "order
12" is not "order 13". So two requests count as the same here when they are near-duplicates and their
words differ only by filler ("please") or by a slip of the pen: one letter, or two swapped, in a word of
four letters or more of which one spelling hardly occurs elsewhere, as `ordr`, but unlike `card` and `cart`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from luthier.audit.finding import Finding, Material, Severity, counted, shown
from luthier.examples.answers import parse_structure
from luthier.examples.groups import Groups
from luthier.examples.wording import normalise, own_system, split_words

LONG_ANSWER_WORDS = 12
_COMPARED_PER_CLUSTER = 200
_FILLER = frozenset(
    (
        *("a", "an", "the", "please", "pls", "kindly", "hi", "hello", "hey", "dear", "thanks", "thank"),
        *("bitte", "danke", "hallo", "por", "favor", "gracias", "hola", "merci", "bonjour"),
    )
)
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
    n = len(material.all)
    permille = 1000 * (n - sum(wrong)) // n  # rounded down: a conflict never leaves 100%
    ceiling = f"; with {counted(len(wrong), 'such conflict')} the accuracy ceiling is {permille / 10}%"
    return [
        Finding(
            check="label_conflict",
            severity=severity,
            score=1 - max(count.values()) / count.total(),
            message=f"{counted(len(members), 'example')} ask the same but have {len(count)} answers: "
            + _listed(members, answers, count, material)
            + (ceiling if severity != "info" else ""),
            fix="decide which answer is right, or put what decides it into the input"
            + _column(members, material),
            examples=tuple(material.all[m] for m in members),
        )
        for members, count, severity in zip(sets, counts, severities, strict=True)
    ]


def _column(members: Sequence[int], material: Material) -> str:
    """Names a column of text that was not read and differs, such as a contract beside a question."""
    rows = [material.all[m].fields for m in members]
    for name in rows[0]:
        texts = {row.get(name) for row in rows if isinstance(row.get(name), str)}
        if len(texts) > 1 and all(" " in str(text).strip() for text in texts):
            return f"; column {name!r} differs, and is not part of it"
    return ""


def _listed(members: Sequence[int], answers: Sequence[str], count: Counter[str], material: Material) -> str:
    spelt = {answers[m]: material.all[m].answer for m in reversed(members)}
    return ", ".join(f"{shown(spelt[answer], 30)} ({n})" for answer, n in count.most_common(4))


def words_agree(a: Sequence[str], b: Sequence[str], occurrences: Mapping[str, int]) -> bool:
    """Whether two requests differ only by filler and slips of the pen.

    Args:
        a, b: words of the two.
        occurrences: number of requests in which a word occurs.
    """
    a = [word for word in a if word not in _FILLER]
    b = [word for word in b if word not in _FILLER]
    if len(a) != len(b):
        return False
    return all(
        x == y
        or (min(occurrences.get(x, 0), occurrences.get(y, 0)) <= RARE_WORD_REQUESTS and _one_slip(x, y))
        for x, y in zip(a, b, strict=True)
    )


def _one_slip(a: str, b: str) -> bool:
    if min(len(a), len(b)) < 4 or any(c.isdigit() for c in a + b):
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    swapped = len(a) > 1 and a[1] + a[0] + a[2:] == b
    return swapped or a[1:] == b or a == b[1:] or a[1:] == b[1:]


def _same_requests(material: Material) -> list[list[int]]:
    groups = Groups(len(material.all))
    systems = [normalise(own_system(example) or "") for example in material.all]
    first: dict[tuple[str, str], int] = {}
    for m, request in enumerate(material.requests):
        groups.join(m, first.setdefault((systems[m], request), m))
    occurrences = _count_words(material)
    for cluster in material.like_requests:
        distinct = list({groups.root(m): m for m in cluster.members})[:_COMPARED_PER_CLUSTER]
        words = {m: split_words(material.requests[m]) for m in distinct}
        for at, m in enumerate(distinct):
            for other in distinct[:at]:
                if systems[m] == systems[other] and words_agree(words[m], words[other], occurrences):
                    groups.join(m, other)
    return [members for members in groups.clusters() if len(members) > 1]


def _count_words(material: Material) -> Counter[str]:
    if not material.like_requests:
        return Counter()
    return Counter(word for request in set(material.requests) for word in set(split_words(request)))


def _comparable(answer: str, material: Material) -> str:
    if material.answer_kind == "json" and (value := parse_structure(answer)) is not None:
        return json.dumps(value, sort_keys=True)
    return normalise(answer)


def _severity(material: Material, members: Sequence[int]) -> Severity:
    if all(material.all[m].rejected for m in members):
        return "info"  # each was preferred to something; none has to be the only good one
    if material.answer_kind != "text":
        return "error"
    longest = max(len(material.all[m].answer.split()) for m in members)
    return "info" if longest > LONG_ANSWER_WORDS else "warning"
