"""Wrong labels planted in labelled texts: the check against cleanlab and against picking at random."""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import luthier.demo
from bench.checks.planting import example, material
from bench.checks.texts import Half, read_suite
from luthier.audit.finding import NotApplicableError
from luthier.audit.label_error import find_label_errors
from luthier.audit.out_of_fold import out_of_fold_chances

ROWS = 400
RATES = (0.05, 0.1, 0.2)
NOISES = ("any other label", "the label most like it")
SIDES = ("label_error", "cleanlab, same probabilities", "cleanlab, its own model")
Labels = npt.NDArray[np.int64]
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class LabelSet:
    """Texts with a label each; `read` gives (text, label)."""

    name: str
    half: Half
    read: Callable[[], Iterable[tuple[str, str]]]


def _tickets() -> Iterable[tuple[str, str]]:
    path = Path(luthier.demo.__file__).with_name("tickets.jsonl")
    for line in path.read_text(encoding="utf-8").splitlines():
        asked, answered = json.loads(line)["messages"][-2:]
        yield asked["content"], json.loads(answered["content"])["category"]


def _columns(file: str, text: Sequence[str], label: str) -> Callable[[], Iterable[tuple[str, str]]]:
    def read() -> Iterable[tuple[str, str]]:
        for row in read_suite(file):
            said = " ".join(str(row.get(name) or "") for name in text).strip()
            if said and row.get(label):
                yield said, str(row[label])

    return read


def _subjects(folder: str, names: Sequence[str]) -> Callable[[], Iterable[tuple[str, str]]]:
    def read() -> Iterable[tuple[str, str]]:
        for name in names:
            for row in read_suite(f"MedMCQA/{folder}/{name}.jsonl"):
                yield f"{row['question']} {row.get('options', '')}", name

    return read


LABEL_SETS = (
    LabelSet("support mail, category", "tuning", _tickets),
    LabelSet(
        "medical exams, subject",
        "tuning",
        _subjects("MedMCQA-Validation", ("Dental", "Pharmacology", "Pathology", "Pediatrics", "Surgery")),
    ),
    LabelSet(
        "StereoSet, kind of prejudice",
        "held-out",
        _columns("StereoSet/test.jsonl", ("context", "stereotype"), "bias_type"),
    ),
    LabelSet(
        "consultations, section of the note",
        "held-out",
        _columns("MTSDialog/validation.csv", ("dialogue", "section_text"), "section_header"),
    ),
    LabelSet(
        "medical exams, other subjects",
        "held-out",
        _subjects("MedMCQA-Test", ("Anatomy", "Physiology", "Ophthalmology", "Social_Preventive_Medicine")),
    ),
)
HARD_SETS = (
    LabelSet("BoolQ, yes or no", "tuning", _columns("BoolQ/dev.jsonl", ("question", "passage"), "answer")),
    LabelSet(
        "causal judgement, yes or no",
        "held-out",
        _columns("Bigbench/Causal-judgment/test.jsonl", ("passage", "question"), "answer"),
    ),
)


def read_labelled(given: LabelSet, rows: int) -> Rows:
    """A random part of the set's distinct texts, of labels that at least one in 25 has."""
    texts = dict(given.read())
    counts = Counter(texts.values())
    usual = {label for label, n in counts.items() if 25 * n >= min(rows, len(texts))}
    kept = [(text, label) for text, label in texts.items() if label in usual]
    return random.Random(0).sample(kept, min(rows, len(kept)))


def plant_noise(texts: Sequence[str], labels: Labels, rate: float, noise: str, seed: int) -> Labels:
    """Labels of which this share is wrong now: any other one, or the one whose texts are most like."""
    dice = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    like = _nearest_label(texts, labels) if noise != NOISES[0] else None
    changed = labels.copy()
    for place in dice.choice(len(labels), round(rate * len(labels)), replace=False):
        if like is None:
            changed[place] = (labels[place] + dice.integers(1, classes)) % classes
        else:
            changed[place] = like[labels[place]]
    return changed


def _nearest_label(texts: Sequence[str], labels: Labels) -> Labels:
    """For each label the other one whose mean vector of words is the closest."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    means = np.stack([np.asarray(rows[labels == k].mean(axis=0)).ravel() for k in range(labels.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    like = means @ means.T
    np.fill_diagonal(like, -1)
    return np.asarray(like.argmax(axis=1), dtype=np.int64)


def measure_noise(rows: Rows, rate: float, noise: str, seed: int = 0) -> dict[str, tuple[int, int, int]]:
    """By side: how many of the flagged are wrong, how many are flagged, how many are wrong."""
    names = sorted({label for _, label in rows})
    texts = [text for text, _ in rows]
    right = np.array([names.index(label) for _, label in rows])
    given = plant_noise(texts, right, rate, noise, seed)
    chances = out_of_fold_chances(texts, given.tolist(), range(len(rows)), classes=len(names))
    flagged = {
        SIDES[0]: _by_the_check(texts, [names[label] for label in given]),
        SIDES[1]: _by_cleanlab(given, chances),
        SIDES[2]: _by_its_own_model(texts, given),
    }
    wrong = given != right
    return {side: (int(wrong[own].sum()), len(own), int(wrong.sum())) for side, own in flagged.items()}


def _by_the_check(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Rows that the check names; none where it refuses to judge."""
    rows = [example(text, label, line) for line, (text, label) in enumerate(zip(texts, labels, strict=True))]
    try:
        return [one.line for f in find_label_errors(material({"all": rows})) for one in f.examples]
    except NotApplicableError:
        return []


def _by_cleanlab(given: Labels, chances: npt.NDArray[np.float64]) -> list[int]:
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]

    sums = chances.sum(axis=1, keepdims=True)
    return np.flatnonzero(find_label_issues(given, chances / sums, n_jobs=1)).tolist()


def _by_its_own_model(texts: Sequence[str], given: Labels) -> list[int]:
    """`CleanLearning()` as it comes, with its logistic regression, on scikit-learn's default weights."""
    from cleanlab.classification import CleanLearning  # type: ignore[import-untyped]
    from sklearn.feature_extraction.text import TfidfVectorizer

    features = TfidfVectorizer().fit_transform(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = CleanLearning(find_label_issues_kwargs={"n_jobs": 1}).find_label_issues(features, given)
    return np.flatnonzero(found["is_label_issue"].to_numpy()).tolist()


def refusal_of(rows: Rows) -> str:
    """Why the check does not judge these labels, or how many it calls wrong."""
    examples = [example(text, label, line) for line, (text, label) in enumerate(rows)]
    try:
        return f"{len(find_label_errors(material({'all': examples})))} of {len(rows)} called wrong"
    except NotApplicableError as reason:
        return f"not judged: {reason}"


def against_chance(counts: Mapping[str, tuple[int, int, int]], rows: int) -> float:
    """How many times the precision of a random pick the check has."""
    right, flagged, wrong = counts[SIDES[0]]
    return (right / max(1, flagged)) / (wrong / rows)
