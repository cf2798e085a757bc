"""The predictions side by side: which held-out examples two candidates answered differently, and
which answers were confident and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from luthier.card.numbers import finite
from luthier.card.plain_text import clean_text, clip
from luthier.card.view import Answered, Comparison, Confidence, Field, Row
from luthier.grade.answer_json import NotJson, parse_object
from luthier.grade.json_fields import flatten

MOST_ROWS = 200
MOST_POINTS = 600
MOST_CONFIDENT = 12
MOST_FIELDS = 40
RIGHT = 1.0 - 1e-9

KINDS = ("worse", "better", "wrong", "unscored", "right")

Reader = Callable[[str], Sequence[Mapping[str, Any]]]


def read_comparison(read: Reader, names: Sequence[str], recommended: str | None) -> Comparison | None:
    """Pair the answers of the base (`prompt` where it was measured) and of `tuned` by example id.

    At most `MOST_ROWS` rows are kept: one of each kind in turn, the largest differences first, so
    that no kind crowds out another. None when fewer than two candidates answered.
    """
    base_name, tuned_name = _choose_pair(names, recommended)
    if base_name is None or tuned_name is None:
        return None
    tuned_rows = {row["id"]: row for row in read(tuned_name) if "id" in row}
    pairs = [(row, tuned_rows[row["id"]]) for row in read(base_name) if row.get("id") in tuned_rows]
    if not pairs:
        return None
    kinds = [classify(finite(base.get("score")), finite(tuned.get("score"))) for base, tuned in pairs]
    counts = {kind: kinds.count(kind) for kind in KINDS}
    chosen = _take_in_turn(list(zip(kinds, pairs, strict=True)))
    rows = [_row(kind, base, tuned) for kind, (base, tuned) in chosen]
    return Comparison(base_name, tuned_name, rows, counts)


def classify(base: float | None, tuned: float | None) -> str:
    """better, worse, wrong (equal and not fully right), right (both fully right) or unscored."""
    if base is None or tuned is None:
        return "unscored"
    if abs(tuned - base) > 1e-9:
        return "better" if tuned > base else "worse"
    return "right" if tuned >= RIGHT else "wrong"


def read_confidence(
    read: Reader, names: Sequence[str], recommended: str | None, verdict: Mapping[str, Any]
) -> Confidence | None:
    """Confident and wrong answers of the candidate that the verdict counted, else of `tuned` or another.

    The count, share and threshold are the verdict's; the answers listed are the lowest-scored ones
    at or above its threshold. None when there is neither a count nor any confidence.
    """
    told = (verdict.get("candidate"), "tuned", recommended, *names)
    name = next((name for name in told if name in names), None)
    if name is None:
        return None
    rows = [row for row in read(name) if finite(row.get("confidence")) is not None]
    n, threshold = finite(verdict.get("n")), finite(verdict.get("threshold"))
    scored = [row for row in rows if finite(row.get("score")) is not None]
    if n is None and not scored:
        return None
    points = [(_number(row, "confidence"), _number(row, "score") >= RIGHT) for row in scored]
    stride = -(-len(points) // MOST_POINTS) or 1
    listed: list[Mapping[str, Any]] = []
    if n is not None and threshold is not None:
        confident = [
            r for r in scored if _number(r, "confidence") >= threshold and _number(r, "score") < RIGHT
        ]
        confident.sort(key=lambda row: (_number(row, "score"), -_number(row, "confidence")))
        listed = confident[: min(int(n), MOST_CONFIDENT)]
    return Confidence(
        candidate=name,
        n=n,
        of=None if finite(verdict.get("of")) is None else int(verdict["of"]),
        share=finite(verdict.get("share")),
        threshold=threshold,
        points=points[::stride],
        examples=[
            (_where(r), clip(_text(r.get("input"))), clip(_text(r.get("reference"))), _answered(r))
            for r in listed
        ],
    )


def _choose_pair(names: Sequence[str], recommended: str | None) -> tuple[str | None, str | None]:
    tuned = "tuned" if "tuned" in names else None
    base = "prompt" if "prompt" in names else next((name for name in names if name != tuned), None)
    if tuned is None:
        others = [name for name in names if name != base]
        tuned = recommended if recommended in others else next(iter(others), None)
    return base, tuned


def _take_in_turn(
    rows: list[tuple[str, tuple[Mapping[str, Any], Mapping[str, Any]]]],
) -> list[tuple[str, tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    def size(row: tuple[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float:
        base, tuned = row[1]
        return -abs(_number(tuned, "score") - _number(base, "score"))

    queues = [sorted((row for row in rows if row[0] == kind), key=size) for kind in KINDS]
    taken: list[list[tuple[str, tuple[Mapping[str, Any], Mapping[str, Any]]]]] = [[] for _ in queues]
    room = MOST_ROWS
    while room and any(len(q) > len(t) for q, t in zip(queues, taken, strict=True)):
        for queue, kept in zip(queues, taken, strict=True):
            if room and len(kept) < len(queue):
                kept.append(queue[len(kept)])
                room -= 1
    return [row for kept in taken for row in kept]


def _row(kind: str, base: Mapping[str, Any], tuned: Mapping[str, Any]) -> Row:
    return Row(
        id=_text(base.get("id")),
        where=_where(base),
        input=clip(_text(base.get("input"))),
        reference=clip(_text(base.get("reference"))),
        base=_answered(base),
        tuned=_answered(tuned),
        kind=kind,
        fields=_fields(base, tuned),
    )


def _fields(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> list[Field]:
    """The fields of a JSON reference beside both answers' values, where the grader scored fields."""
    texts = (base.get("reference"), base.get("answer"), tuned.get("answer"))
    reference, left, right = (_parse(text) for text in texts)
    left_scores, right_scores = field_scores(base.get("detail")), field_scores(tuned.get("detail"))
    if reference is None or left is None or right is None or not (left_scores or right_scores):
        return []
    names = list(dict.fromkeys([*reference, *left_scores, *right_scores]))

    def side(answer: Mapping[str, str], scores: Mapping[str, float], name: str) -> tuple[str, bool | None]:
        return answer.get(name, "absent"), scores[name] >= RIGHT if name in scores else None

    return [
        Field(
            name,
            reference.get(name, "absent"),
            side(left, left_scores, name),
            side(right, right_scores, name),
        )
        for name in names[:MOST_FIELDS]
    ]


def field_scores(detail: Any) -> dict[str, float]:
    """Per-field scores of a grader's detail, as `json_fields` writes them; empty for other graders."""
    fields = detail.get("fields") if isinstance(detail, dict) else None
    if not isinstance(fields, dict):
        return {}
    return {str(name): float(v) for name, v in fields.items() if isinstance(v, bool) or finite(v) is not None}


def _parse(text: Any) -> dict[str, str] | None:
    """The leaf fields of a JSON answer by dotted name, read as the grader reads them; None if unreadable."""
    try:
        fields = flatten(parse_object(_text(text)))
    except NotJson:
        return None
    return {clean_text(".".join(path)): _show(value) for path, value in fields.items()}


def _show(value: Any) -> str:
    return clean_text(clip(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 300))


def _answered(row: Mapping[str, Any]) -> Answered:
    return Answered(
        answer=clip(_text(row.get("answer"))),
        score=finite(row.get("score")),
        confidence=finite(row.get("confidence")),
        reason=_text(row.get("reason")),
        fields=field_scores(row.get("detail")),
    )


def _where(row: Mapping[str, Any]) -> str:
    file, line = _text(row.get("file")), row.get("line")
    return f"{PurePath(file).name}:{line}" if file and isinstance(line, int) else PurePath(file).name


def _number(row: Mapping[str, Any], column: str) -> float:
    value = finite(row.get(column))
    return 0.0 if value is None else value


def _text(value: Any) -> str:
    return "" if value is None else str(value)
