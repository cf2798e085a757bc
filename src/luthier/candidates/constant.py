"""The best fixed answer: what a candidate scores that never looks at the request.

A model that has learnt the form of the answers and nothing else gets this far, which may be far above a
base that does not know the form. With labels that mean nothing, it is all there is to gain.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.examples.example import Example
from luthier.grade import Grader, grade_all
from luthier.grade.answer_json import NotJson, parse_object
from luthier.stats import compare

# these compare with the reference; rules of the user's own or a judge may like one answer for good reasons
REFERENCED = ("label", "string_check", "numeric", "json_fields", "text_similarity")
COMMONEST, DRAWN, JUDGED_ON = 5, 11, 64


def against_constant(
    rows: Sequence[Mapping[str, Any]],
    test: Sequence[Example],
    train: Sequence[Example],
    grader: Grader,
    *,
    clusters: Sequence[str] | None,
    seed: int,
) -> dict[str, Any] | None:
    """The content of `constant` in `scores.json`: graded answers compared with the best fixed one.

    Args:
        rows: graded answers of one candidate, in the order of `test`.
        train: where the fixed answer comes from.
        clusters: the source of each test example, None when every one has its own.

    Returns:
        `answer`, its `score`, and `difference`, `low`, `high`, `p`, `n` of the candidate minus it. None for
        a grader that does not compare with the reference, and where nothing was scored for both.
    """
    if grader.name not in REFERENCED:
        return None
    answer = constant_answer(train, grader, seed=seed)
    fixed = [score.value for score in grade_all(grader, [(answer, e.answer, e) for e in test])]
    both = [i for i, row in enumerate(rows) if row["score"] is not None and fixed[i] is not None]
    if not both:
        return None
    ours, theirs = [rows[i]["score"] for i in both], [fixed[i] or 0.0 for i in both]
    own = None if clusters is None else [clusters[i] for i in both]
    result = compare(ours, theirs, clusters=own, seed=seed)
    return {
        "answer": answer,
        "score": sum(theirs) / len(theirs),
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p": result.p,
        "n": result.n,
    }


def constant_answer(train: Sequence[Example], grader: Grader, *, seed: int) -> str:
    """The training answer that scores best as the answer to every training request.

    Tried are the five commonest answers, eleven drawn by the seed, and for JSON one object of the commonest
    value of each field; on at most 64 examples.
    """
    dice = random.Random(f"{seed}/constant")
    answers = [example.answer for example in train]
    tried = [answer for answer, _ in Counter(answers).most_common(COMMONEST)]
    tried += dice.sample(answers, min(DRAWN, len(answers)))
    tried += _commonest_fields(answers)
    asked = dice.sample(list(train), min(JUDGED_ON, len(train)))

    def total(answer: str) -> float:
        return sum(s.value or 0.0 for s in grade_all(grader, [(answer, e.answer, e) for e in asked]))

    return max(dict.fromkeys(tried), key=total)


def _commonest_fields(answers: Sequence[str]) -> list[str]:
    """One JSON object of the commonest value of each field; nothing where an answer is no object."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    try:
        for answer in answers:
            for name, value in parse_object(answer).items():
                counts[name][json.dumps(value, ensure_ascii=False)] += 1
    except NotJson:
        return []
    values = {name: json.loads(seen.most_common(1)[0][0]) for name, seen in counts.items()}
    return [json.dumps(values, ensure_ascii=False)]
