"""The examples of the study: support mail, public questions, invented facts, and labels made wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from luthier.assets import suite_file
from luthier.demo import DATA
from luthier.examples import Example, Split, read_examples, split_examples
from luthier.examples.duplicates import find_near_duplicates
from luthier.examples.wording import request_text

FACTS = Path(__file__).with_name("facts.jsonl")
UNKNOWN = "unknown"
LONGEST = 340  # characters of an example; longer ones are left out, for time

Row = Mapping[str, Any]
Sides = Mapping[str, tuple[Row, ...]]


@dataclass(frozen=True)
class Size:
    """Most examples of each side."""

    train: int = 120
    validation: int = 24
    test: int = 120


@dataclass(frozen=True)
class Fact:
    """An invented fact.

    Attributes:
        use: `taught` (trained, and among the documents), `untaught` (neither), `shown` (format examples).
        asked: two wordings of the question: the first is trained, the second chooses the epoch.
        held_out: a third one, for the test.
    """

    use: str
    subject: str
    statement: str
    asked: tuple[str, str]
    held_out: str
    answer: str


def row(case: str, user: str, answer: str, **more: Any) -> Row:
    """An example as a line of JSON; `case` pairs it across runs."""
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "case": case, **more}


def read_facts() -> dict[str, list[Fact]]:
    """The invented facts by use."""
    found: dict[str, list[Fact]] = {}
    for line in FACTS.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        fact = Fact(**raw | {"asked": tuple(raw["asked"])})
        found.setdefault(fact.use, []).append(fact)
    return found


def tickets(size: Size, seed: int) -> Sides:
    """Support mail to JSON, as the demo."""
    return _sides("tickets", size, seed)


def categories(size: Size, seed: int, wrong: float) -> Sides:
    """The same mail to its category alone, with a share of wrong labels to learn from, none in the test."""
    sides = _sides("categories", size, seed)
    labels = sorted({_answer(row) for side in sides.values() for row in side})
    return {
        side: rows if side == "test" else with_wrong_labels(rows, wrong, labels, seed)
        for side, rows in sides.items()
    }


def open_book(size: Size, seed: int) -> Sides:
    """Science questions with four options (OpenBookQA)."""
    return _sides("OpenBookQA/test.jsonl", size, seed)


def truthful(size: Size, seed: int) -> Sides:
    """Questions about anything, answered freely (TruthfulQA); its first true answer is the reference."""
    return _sides("TruthfulQA/combined.jsonl", size, seed)


def taught_facts(size: Size) -> Sides:
    """Statements and one wording to train on; a test that asks otherwise, as trained, and for the "
    "untaught."""
    facts = read_facts()
    taught = facts["taught"][: max(4, size.train // 2)]
    stated = [row(f"{f.subject}/told", f"Tell me about {f.subject}.", f.statement) for f in taught]
    asked = [row(f"{f.subject}/asked", f.asked[0], f.answer) for f in taught]
    as_trained = [row(f"{f.subject}/as trained", f.asked[0], f.answer, kind="as trained") for f in taught]
    return {
        "train": (*stated, *asked),
        "validation": tuple(row(f.subject, f.asked[1], f.answer) for f in taught[: size.validation]),
        "test": (*_asked_otherwise(size), *as_trained),
    }


def facts_to_look_up(size: Size) -> Sides:
    """Other facts as examples of the format; the same test, without the trained wording."""
    shown = read_facts()["shown"]
    return {
        "train": tuple(row(f.subject, f.asked[0], f.answer) for f in shown),
        "validation": tuple(row(f.subject, f.asked[1], f.answer) for f in shown),
        "test": _asked_otherwise(size),
    }


def statements(size: Size) -> tuple[str, ...]:
    """The documents: one statement each, of the taught facts alone."""
    return tuple(f.statement for f in read_facts()["taught"][: max(4, size.train // 2)])


def _asked_otherwise(size: Size) -> tuple[Row, ...]:
    facts = read_facts()
    taught = facts["taught"][: max(4, size.train // 2)]
    return (
        *(row(f.subject, f.held_out, f.answer, kind="otherwise") for f in taught),
        *(row(f.subject, f.held_out, UNKNOWN, kind="not taught") for f in facts["untaught"][: size.test]),
    )


def with_wrong_labels(rows: Sequence[Row], share: float, labels: Sequence[str], seed: int) -> tuple[Row, ...]:
    """The rows with `share` of their answers replaced by another label.

    Whose label is wrong at a small share is wrong, in the same way, at a larger one.
    """
    order = list(range(len(rows)))
    random.Random(f"wrong labels/{seed}").shuffle(order)
    wrong = set(order[: round(share * len(rows))])
    found = []
    for place, old in enumerate(rows):
        right = _answer(old)
        others = [label for label in labels if label != right]
        given = random.Random(f"{seed}/{old['case']}").choice(others) if place in wrong else right
        user = old["messages"][0]["content"]
        kind = "wrong" if place in wrong else "right"
        found.append(row(old["case"], user, given, kind=kind, right=right))
    return tuple(found)


def _answer(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def _sides(name: str, size: Size, seed: int) -> Sides:
    """A test that is the same for every seed; training examples that the seed draws."""
    split = _divided(name)
    train = list(split.train)
    random.Random(f"{name}/{seed}").shuffle(train)
    chosen = {
        "train": train[: size.train],
        "validation": split.validation[: size.validation],
        "test": split.test[: size.test],
    }
    return {side: tuple(_as_row(name, example) for example in found) for side, found in chosen.items()}


def _as_row(name: str, example: Example) -> Row:
    answer = example.answer
    if name == "categories":
        answer = json.loads(answer)["category"]
    elif name.startswith("TruthfulQA"):
        answer = json.loads(answer)[0]
    return row(example.id, example.input, answer)


@cache
def _divided(name: str) -> Split:
    path = DATA if name in ("tickets", "categories") else suite_file(name)
    examples = [
        example
        for example in read_examples(path).examples
        if len(example.input) + (0 if name.startswith("TruthfulQA") else len(example.answer)) <= LONGEST
    ]
    clusters = find_near_duplicates([request_text(example) for example in examples])
    near = [cluster.members for cluster in clusters]
    return split_examples(examples, validation=0.1, test=0.4, seed=0, near_duplicates=near)
