"""Where a candidate still fails: its wrong held-out answers, grouped into kinds that recur.

Two views of the same answers. What went wrong is read from the grader's detail: which field, which label
taken for which, which words of a text. Where it goes wrong is looked for in the requests: words whose
requests fail more often than the others, tested one by one and adjusted for their number.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from luthier.examples.example import Example
from luthier.grade.answer_json import NotJson, parse_object
from luthier.grade.json_fields import flatten
from luthier.grade.label import normalise_label
from luthier.grade.text import NOT_REFERENCE
from luthier.stats import holm

ALPHA = 0.05
LEAST = 2  # an answer that fails in its own way is no kind
KINDS = 12
SHOWN = 3
VALUE_CHARACTERS = 30  # longer values are texts, which do not recur
_WORD, _TOKEN = re.compile(r"[^\W\d_]{3,}"), re.compile(r"\w+")

Rows = Sequence[Mapping[str, Any]]
Kind = tuple[str, str | None, str | None]  # field (or ""), expected value, what was given


def find_failures(rows: Rows, train: Sequence[Example]) -> dict[str, Any]:
    """The content of `failures.json`, for one candidate.

    Args:
        rows: graded answers, as in `predictions/<candidate>.jsonl`.
        train: what it was trained on, to say how many examples of a kind there are already.

    Returns:
        `n` and `wrong` (scored below 1); `kinds`: per kind `kind` (in words), `n`, `share` of the wrong
        answers, `trained` (training examples of the same kind, None where that has no meaning), `collect`,
        `cases` (three of them); `words`: per word `word`, `n`, `wrong`, `elsewhere` (share of wrong
        answers without the word), `p` (adjusted).
        An answer with several wrong fields is of several kinds: sizes may add up to more than `wrong`.
    """
    scored = [row for row in rows if row["score"] is not None]
    wrong = [row for row in scored if row["score"] < 1.0]
    groups: dict[Kind, list[Mapping[str, Any]]] = defaultdict(list)
    for row in wrong:
        for kind in set(_kinds(row)):
            groups[kind].append(row)
    counts = _trained_values(train)
    merged = _merge_rare(groups)
    ordered = sorted(merged.items(), key=lambda item: (-len(item[1]), item[0][0], str(item[0])))
    return {
        "n": len(scored),
        "wrong": len(wrong),
        "kinds": [_describe(kind, cases, len(wrong), counts) for kind, cases in ordered[:KINDS]],
        "words": _words(scored),
    }


def failures_of(row: Mapping[str, Any]) -> list[str]:
    """The kinds of one graded answer's failures, in words; none where it is right or unscored."""
    return sorted({said for _, said in failures_by_field(row)})


def failures_by_field(row: Mapping[str, Any]) -> set[tuple[str, str]]:
    """As `failures_of`, each with the field that is wrong ("": the whole answer)."""
    wrong = row["score"] is not None and row["score"] < 1.0
    return {(kind[0], _say(kind)) for kind in _kinds(row)} if wrong else set()


def rest_of(field: str) -> str:
    """What the failures of a field are called together that have no name of their own."""
    return _say((field, None, "other values"))


def _kinds(row: Mapping[str, Any]) -> Iterator[Kind]:
    """What is wrong with one answer."""
    detail = row.get("detail") or {}
    if "fields" in detail:
        if not detail.get("parsed", True):
            yield "", None, "not a JSON object"
            return
        expected, given = _fields(row["reference"]), _fields(row["answer"])
        for name, right in detail["fields"].items():
            if not right:
                yield name, _value(expected, name), _value(given, name)
    elif "label" in detail:
        given_label = detail["label"] if detail.get("known") else "none of the labels"
        yield "", normalise_label(row["reference"]), given_label
    else:
        reason = row.get("reason")
        told = text_fault(row["answer"], row["reference"]) if reason in (None, "", NOT_REFERENCE) else reason
        yield "", None, str(told)


def text_fault(answer: str, reference: str) -> str:
    """What is wrong with a text, by the words that it shares with the reference; case and marks aside."""
    given, right = (_TOKEN.findall(text.casefold()) for text in (answer, reference))
    if not given:
        return "no answer"
    if given == right:
        return "the right words, written otherwise"
    if right and f" {' '.join(right)} " in f" {' '.join(given)} ":
        return "the right words, and more"
    if f" {' '.join(given)} " in f" {' '.join(right)} ":
        return "a part of the right words"
    shared = sum((Counter(given) & Counter(right)).values())
    if not shared:
        return "none of the right words"
    return "most of the right words" if 2 * shared >= len(right) else "few of the right words"


def _fields(answer: str) -> dict[str, str]:
    """Leaf fields of a JSON answer by dotted name, their values as folded text; none of another text."""
    try:
        leaves = flatten(parse_object(answer))
    except NotJson:
        return {}
    return {
        ".".join(path): value.strip().casefold() if isinstance(value, str) else json.dumps(value)
        for path, value in leaves.items()
    }


def _value(fields: Mapping[str, str], name: str) -> str | None:
    """A short value as text; a long one is `another text`, an absent one None."""
    value = fields.get(name)
    return value if value is None or len(value) <= VALUE_CHARACTERS else "another text"


def _merge_rare(groups: Mapping[Kind, list[Mapping[str, Any]]]) -> dict[Kind, list[Mapping[str, Any]]]:
    """Confusions that happen once are put together by their field, or left out where even these are alone."""
    merged: dict[Kind, list[Mapping[str, Any]]] = defaultdict(list)
    for (name, expected, given), cases in groups.items():
        kind = (name, expected, given) if len(cases) >= LEAST else (name, None, "other values")
        merged[kind] += [case for case in cases if case not in merged[kind]]
    return {kind: cases for kind, cases in merged.items() if len(cases) >= LEAST}


def _trained_values(train: Sequence[Example]) -> Mapping[str, Counter[str]]:
    """How often each value is the right one in training, by field; "" is the whole answer as a label."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        counts[""][normalise_label(example.answer)] += 1
        for name, value in _fields(example.answer).items():
            counts[name][value] += 1
    return counts


def _describe(kind: Kind, cases: Rows, wrong: int, counts: Mapping[str, Counter[str]]) -> dict[str, Any]:
    name, expected, _ = kind
    trained = counts[name][expected] if expected is not None and name in counts else None
    return {
        "kind": _say(kind),
        "field": name or None,
        "n": len(cases),
        "share": len(cases) / wrong,
        "trained": trained,
        "collect": _advice(kind, trained, counts),
        "cases": [
            {key: case.get(key) for key in ("id", "input", "answer", "reference", "file", "line")}
            for case in cases[:SHOWN]
        ],
    }


def _say(kind: Kind) -> str:
    name, expected, given = kind
    if given == "other values":
        return f"{name}: other values" if name else "other wrong answers"
    if expected is None and given is None:
        return f"{name}: wrong"
    prefix = f"{name}: " if name else ""
    if given is None:
        return f"{prefix}{expected!r} left out"
    if expected is None:
        return f"{prefix}{given!r} that should not be there" if name else given
    return f"{prefix}{expected!r} answered as {given!r}"


def _advice(kind: Kind, trained: int | None, counts: Mapping[str, Counter[str]]) -> str:
    """What examples would help: as many of this value as its peers have, or as many again."""
    name, expected, given = kind
    if trained is None or expected is None:
        return "examples like the cases below, with the right answer"
    usual = round(median(counts[name].values()))
    more = max(usual - trained, trained, LEAST)
    what = f"{name} {expected!r}" if name else f"{expected!r}"
    contrast = "" if given in (None, "none of the labels") else f", and of {given!r} that look alike"
    return f"about {more} more examples of {what} (training has {trained}){contrast}"


def _words(scored: Rows) -> list[dict[str, Any]]:
    """Words whose requests fail more often than the rest (Fisher's exact test, one-sided, Holm)."""
    from scipy.stats import fisher_exact

    total, wrong = len(scored), sum(row["score"] < 1.0 for row in scored)
    if not 0 < wrong < total:
        return []
    seen: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for row in scored:
        words = {word.casefold() for word in _WORD.findall(row.get("input") or "")}
        seen.update(words)
        failed.update(words if row["score"] < 1.0 else ())
    # a word so rare or so common that no split of its requests could be significant is no test
    candidates = [w for w in sorted(seen) if _could_matter(seen[w], wrong, total)]
    tables = [
        [[failed[w], seen[w] - failed[w]], [wrong - failed[w], total - seen[w] - wrong + failed[w]]]
        for w in candidates
    ]
    ps = holm([float(fisher_exact(table, alternative="greater").pvalue) for table in tables])
    found = [
        {
            "word": word,
            "n": seen[word],
            "wrong": failed[word],
            "elsewhere": (wrong - failed[word]) / (total - seen[word]),
            "p": p,
        }
        for word, p in zip(candidates, ps, strict=True)
        if p is not None and p <= ALPHA
    ]
    return sorted(found, key=lambda entry: entry["p"])[:KINDS]


def _could_matter(n: int, wrong: int, total: int) -> bool:
    """Whether the most extreme table of a word with `n` requests is significant before adjusting."""
    from scipy.stats import hypergeom

    if not LEAST < n < total:
        return False
    most = min(n, wrong)
    return float(hypergeom.sf(most - 1, total, wrong, n)) <= ALPHA
