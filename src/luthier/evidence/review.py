"""The answers that a person should read before release, and what the person said of them.

Five reasons put an answer on the list: chance (a sample of the answers that would be given, drawn with a
fixed seed), being sure and wrong, the largest kind of failure, a slice that got worse, a probe's item that
was lost. The sample alone is fair: the others were chosen because they are wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from luthier.errors import RecordError
from luthier.evidence.failures import failures_of
from luthier.evidence.slices import slice_of
from luthier.examples.example import Example
from luthier.recipe import digest
from luthier.record import Record, write_jsonl

Judgement = Literal["accept", "wrong", "unsure"]
JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)
LIST, DONE = "review.jsonl", "review-done.jsonl"
SAMPLED = "drawn at random from the answers that would be given"
SAMPLE, CONFIDENT, KIND, SLICES, PROBES = 20, 12, 12, 8, 8  # rows for each reason: 60 at most
SUREST = 4  # without a threshold, the surest quarter is what would be given
PROMPT_CHARACTERS = 600

Rows = Sequence[Mapping[str, Any]]
Reasons = Iterator[tuple[Mapping[str, Any], str]]


@dataclass(frozen=True)
class Progress:
    """How far a review is.

    Attributes:
        n: rows on the list.
        judged: rows that were called right or wrong.
        unsure: rows that a person looked at and could not judge: they stay open.
        wrong: rows called wrong, of all.
        sampled, sampled_wrong: of the rows drawn at random, those judged, and those of them called wrong.
    """

    n: int
    judged: int
    unsure: int
    wrong: int
    sampled: int
    sampled_wrong: int


def list_answers(
    rows: Rows,
    test: Sequence[Example],
    *,
    threshold: float | None,
    failures: Mapping[str, Any],
    lost_slices: Rows,
    others: Mapping[str, Mapping[str, float | None]],
    probes: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> list[dict[str, Any]]:
    """The rows of `review.jsonl`, at most 60, the random ones first; the same for the same record.

    Args:
        rows: graded answers with their confidence.
        test: the examples, for their slices.
        threshold: the lowest confidence that is answered; None where none could be promised.
        failures: of these answers, as in `failures.json`.
        lost_slices: rows of `slices.paired` in which tuned is worse.
        others: of each other candidate, scores by example id.
        probes: reports by name, as in `probes/`.
        seed: of the sample.

    Returns:
        `key` (of this answer to this request, whichever run gave it), `id`, `where`, `prompt` (shortened),
        `expected`, `answer`, `confidence`, `score`, `why` (a list), `sampled`.
    """
    given = _given(rows, threshold)
    chosen: dict[str, dict[str, Any]] = {}
    drawn = random.Random(f"{seed}/review").sample(given, min(SAMPLE, len(given)))
    reasons: list[tuple[Mapping[str, Any], str]] = [(row, SAMPLED) for row in drawn]
    for found, most in (
        (_confident_and_wrong(given), CONFIDENT),
        (_of_largest_kind(rows, failures), KIND),
        (_in_lost_slices(rows, test, lost_slices, others), SLICES),
    ):
        reasons += _first(found, most)
    for row, why in reasons:
        entry = chosen.setdefault(row["id"], _row(row))
        entry["why"] += [why] if why not in entry["why"] else []
        entry["sampled"] |= why == SAMPLED
    return [*chosen.values(), *_lost_in_probes(probes)]


def _given(rows: Rows, threshold: float | None) -> list[Mapping[str, Any]]:
    """Answers of at least the threshold, surest first; the surest quarter where there is none."""
    rated = [row for row in rows if row["confidence"] is not None]
    ordered = sorted(rated, key=lambda row: (-row["confidence"], row["id"]))
    if threshold is None:
        return ordered[: -(-len(ordered) // SUREST)]
    return [row for row in ordered if row["confidence"] >= threshold]


def _confident_and_wrong(given: Rows) -> Reasons:
    wrong = [row for row in given if row["score"] is not None and row["score"] < 1.0]
    for row in sorted(wrong, key=lambda row: (row["score"], -row["confidence"], row["id"])):
        yield row, "confident, and not right by the grader"


def _of_largest_kind(rows: Rows, failures: Mapping[str, Any]) -> Reasons:
    """Every answer of the largest kind of failure; of a kind that gathers rare ones, its cases."""
    by_id = {row["id"]: row for row in rows}
    for kind in failures.get("kinds", ())[:1]:
        own = [row for row in rows if kind["kind"] in failures_of(row)]
        cases = [by_id[case["id"]] for case in kind["cases"] if case["id"] in by_id]
        for row in own or cases:
            yield row, f"the most frequent failure: {kind['kind']}"


def _in_lost_slices(
    rows: Rows,
    test: Sequence[Example],
    lost_slices: Rows,
    others: Mapping[str, Mapping[str, float | None]],
) -> Reasons:
    examples = {example.id: example for example in test}
    for lost in sorted(lost_slices, key=lambda row: (row["difference"], row["field"], row["value"])):
        theirs = others.get(lost["b"], {})
        losses = []
        for row in rows:
            score = theirs.get(row["id"])
            inside = slice_of(examples[row["id"]], lost["field"]) == lost["value"]
            if inside and score is not None and row["score"] is not None and row["score"] < score:
                losses.append((row["score"] - score, row["id"], row))
        for _, _, row in sorted(losses, key=lambda loss: loss[:2]):
            yield row, f"worse than {lost['b']}, in a slice that got worse: {lost['field']} = {lost['value']}"


def _lost_in_probes(probes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Items that the base model got right, or answered as it should, and the tuned one does not: in turns."""
    queues = [list(_flips(name, probe)) for name, probe in sorted(probes.items())]
    longest = max(map(len, queues), default=0)
    different: dict[str, dict[str, Any]] = {}
    for row in (queue[i] for i in range(longest) for queue in queues if i < len(queue)):
        different.setdefault(row["key"], row)
    return list(different.values())[:PROBES]


def _flips(name: str, probe: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if not (probe.get("flips") or {}).get("lost"):
        return
    for number, example in enumerate(probe["examples"], start=1):
        texts = [example.get(side) for side in ("base", "tuned")]
        if example.get("kind") == "gained" or not all(isinstance(text, str) for text in texts):
            continue
        prompt = example.get("question") or example.get("text") or ""
        found = {
            "id": f"{name}/{number}",
            "file": f"probes/{name}.json",
            "line": None,
            "input": prompt,
            "reference": example.get("reference") or f"as the base model: {texts[0]}",
            "answer": texts[1],
            "confidence": None,
            "score": None,
        }
        yield _row(found) | {"why": [f"lost in the probe {name}; the base model: {texts[0]}"]}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    prompt = row["input"]
    return {
        "key": digest([row["input"], row["reference"], row["answer"]])[:16],
        "id": row["id"],
        "where": f"{row['file']}:{row['line']}" if row.get("line") else row["file"],
        "prompt": prompt if len(prompt) <= PROMPT_CHARACTERS else f"{prompt[:PROMPT_CHARACTERS]} …",
        "expected": row["reference"],
        "answer": row["answer"],
        "confidence": row["confidence"],
        "score": row["score"],
        "why": [],
        "sampled": False,
    }


def _first(found: Iterable[tuple[Mapping[str, Any], str]], most: int) -> list[tuple[Mapping[str, Any], str]]:
    """The first `most` different answers."""
    kept: dict[str, tuple[Mapping[str, Any], str]] = {}
    for row, why in found:
        kept.setdefault(row["id"], (row, why))
        if len(kept) == most:
            break
    return list(kept.values())


def read_list(record: Record) -> list[dict[str, Any]]:
    """The list of a run.

    Raises:
        RecordError: there is none.
    """
    return record.read_jsonl(LIST, needed_by="review")


def read_judgements(record: Record) -> dict[str, dict[str, Any]]:
    """What a person said, by the row's key; the last word counts.

    Raises:
        RecordError: the file is broken, or holds a word that is no judgement.
    """
    if not (record / DONE).is_file():
        return {}
    said = {str(row.get("key")): row for row in record.read_jsonl(DONE)}
    for row in said.values():
        if row.get("judgement") not in JUDGEMENTS:
            raise RecordError(
                f"no judgement: {row.get('judgement')!r}; expected {', '.join(JUDGEMENTS)}",
                where=str(record / DONE),
                fix=f"take the line out, then: luthier review {record.path}",
            )
    return said


def judge(record: Record, key: str, judgement: Judgement, comment: str, *, at: str) -> None:
    """Add what a person says of one row; earlier words on it stay in the file and no longer count.

    Args:
        at: when, as ISO 8601.
    """
    rows = record.read_jsonl(DONE) if (record / DONE).is_file() else []
    write_jsonl(record / DONE, [*rows, {"key": key, "judgement": judgement, "comment": comment, "at": at}])


def open_rows(rows: Sequence[dict[str, Any]], said: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows that nobody judged yet, then those of which the person was unsure; the same answer once."""
    different = list({row["key"]: row for row in rows}.values())
    new = [row for row in different if row["key"] not in said]
    return new + [row for row in different if said.get(row["key"], {}).get("judgement") == "unsure"]


def measure_progress(rows: Rows, said: Mapping[str, Mapping[str, Any]]) -> Progress:
    """How far the review of a list is."""
    words = [said.get(row["key"], {}).get("judgement") for row in rows]
    drawn = [word for row, word in zip(rows, words, strict=True) if row["sampled"]]
    return Progress(
        n=len(rows),
        judged=sum(word in ("accept", "wrong") for word in words),
        unsure=words.count("unsure"),
        wrong=words.count("wrong"),
        sampled=sum(word in ("accept", "wrong") for word in drawn),
        sampled_wrong=drawn.count("wrong"),
    )
