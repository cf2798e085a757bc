"""Wrong labels are found by a model that never saw them; a model that only guesses is not asked."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from luthier.audit import Finding
from luthier.audit.finding import Material, NotApplicableError
from luthier.audit.label_error import find_label_errors, suspects
from luthier.audit.out_of_fold import FOLDS, folds
from luthier.examples.example import Example, Message

BILLING = "invoice charged payment receipt amount twice card fee tax price"
DELIVERY = "parcel courier late tracking shipped address door van lost package"
ACCOUNT = "password login locked email reset profile username session code sign"
WORDS = {"billing": BILLING.split(" "), "delivery": DELIVERY.split(" "), "account": ACCOUNT.split(" ")}
COMMON = [
    "the",
    "a",
    "my",
    "was",
    "is",
    "not",
    "and",
    "it",
    "to",
    "for",
    "with",
    "this",
    "please",
    "today",
    "again",
    "still",
    "have",
    "you",
    "on",
    "at",
]


def tickets(n: int, *, seed: int = 0) -> list[Example]:
    """Requests whose words tell their label."""
    rng = random.Random(seed)
    found = []
    for line in range(1, n + 1):
        label = list(WORDS)[line % 3]
        words = rng.sample(WORDS[label], 5) + rng.sample(COMMON, 5)
        rng.shuffle(words)
        found.append(example(" ".join(words), label, line))
    return found


def example(asked: str, label: str, line: int, group: str | None = None) -> Example:
    said = (Message("user", asked), Message("assistant", label))
    return Example(f"e{line}", said, "tickets.jsonl", line, group)


def look(examples: Sequence[Example], kind: str = "label") -> list[Finding]:
    return find_label_errors(Material({"all": examples}, None, None, (), None, kind))  # type: ignore[arg-type]


def test_planted_labels_are_found_with_their_place() -> None:
    examples = tickets(240)
    wrong = {10: "account", 57: "delivery", 120: "delivery"}
    for line, label in wrong.items():
        assert examples[line - 1].answer != label
        examples[line - 1] = example(examples[line - 1].input, label, line)
    findings = look(examples)
    assert {f.examples[0].where for f in findings} == {f"tickets.jsonl:{line}" for line in wrong}
    scores = [f.score or 0 for f in findings]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.3
    told = next(f for f in findings if f.examples[0].line == 57)
    assert told.check == "label_error" and "labelled 'delivery', reads like 'billing'" in told.message


def test_clean_labels_are_quiet() -> None:
    assert look(tickets(240)) == []


def test_the_thresholds_decide() -> None:
    # By hand: t_0 = (0.9 + 0.7 + 0.2) / 3 = 0.6, t_1 = (0.8 + 0.55) / 2 = 0.675. The third row reaches t_1
    # with 0.8 and counts as a 1; the fifth reaches neither, and counts as nothing.
    chances = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.2, 0.8], [0.45, 0.55]])
    assert suspects(chances, np.array([0, 0, 0, 1, 1])) == [(2, 1)]


def test_the_surest_comes_first() -> None:
    chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    given = np.array([0, 0, 0, 1, 1, 0])
    assert [k for k, _ in suspects(chances, given)][:1] == [5]


def test_groups_stay_in_one_fold_and_labels_are_spread() -> None:
    labels = [k % 3 for k in range(150)]
    groups = [k // 2 if k < 60 else k for k in range(150)]
    fold = folds(labels, groups)
    assert all(len({fold[m] for m in range(150) if groups[m] == g}) == 1 for g in set(groups))
    for label in range(3):
        counts = np.bincount([fold[m] for m in range(150) if labels[m] == label], minlength=FOLDS)
        assert counts.min() >= 8 and counts.max() <= 12  # 50 over 5 folds
    assert (folds(labels, groups) == fold).all()


def test_copies_do_not_vouch_for_each_other() -> None:
    """Both copies of a wrong row carry the wrong label: seen in training, one would excuse the other."""
    examples = tickets(240)
    asked = "invoice charged payment receipt twice the my was not"
    examples += [example(asked, "delivery", 900), example(asked, "delivery", 901)]
    assert {f.examples[0].line for f in look(examples)} == {900, 901}
    named = tickets(240)
    twins = [example(f"{asked} {word}", "delivery", 900 + k, "one") for k, word in enumerate(("a", "b"))]
    assert {f.examples[0].line for f in look([*named, *twins])} == {900, 901}


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        (tickets(30), "together 30"),
        ([example(e.input, "same", e.line) for e in tickets(60)], "1 of 1 labels"),
        ([example(e.input, random.Random(e.line).choice("ab"), e.line) for e in tickets(200)], "cannot tell"),
    ],
)
def test_what_cannot_be_judged_is_said(examples: list[Example], reason: str) -> None:
    with pytest.raises(NotApplicableError, match=reason):
        look(examples)
    with pytest.raises(NotApplicableError, match="not labels"):
        look(examples, "text")


def test_rare_labels_are_left_out() -> None:
    examples = [*tickets(240), *(example("invoice charged payment", "rare", 900 + k) for k in range(5))]
    assert look(examples) == []
