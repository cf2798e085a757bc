"""Labels that are probably wrong: confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021).

A fast model is asked about each example without having seen it. For each label the threshold t_j is the
model's mean probability of it among the examples that carry it (equation 2 of the paper). An example counts
as a j where the probability of j reaches t_j, of several such as the most probable one. If that is another
label than it carries, and the one the model predicts, the label is probably wrong. Such examples are ranked
by their normalised margin: the probability of their label less that of the most probable other.

We deviate in three ways. Near-duplicates and named groups stay in one fold, or the model would have seen
the example. Margins under 0.2 are kept quiet: in clean data a model is that unsure, too. And a model that
hardly knows the labels apart is not asked, nor are labels that it has hardly seen: what it then calls wrong
is as good as drawn by lot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from luthier.audit.finding import Finding, Material, NotApplicableError, shown
from luthier.audit.out_of_fold import Chances, out_of_fold_chances
from luthier.examples.example import Example

LEAST_PER_LABEL = 10
LEAST_EXAMPLES = 50
MOST_LABELS = 50
LEAST_SKILL = 0.1  # of the way from always saying the most frequent label to never being wrong
LEAST_MARGIN = 0.2
SURE = 0.5  # margin from which a finding is a warning
MOST_AT_ONCE = 20_000


def find_label_errors(material: Material) -> list[Finding]:
    """One finding per example, the surest first; score is minus the normalised margin, 0.2 to 1.

    Raises:
        NotApplicableError: the answers are no labels, too few, too many kinds, or the model cannot tell them.
    """
    if material.answer_kind != "label":
        raise NotApplicableError(f"the answers are {material.answer_kind}, not labels")
    places, given, names = _judged(material)
    groups = _groups(material)
    texts = [_text(example) for example in material.all]
    findings = []
    for start in range(0, len(places), MOST_AT_ONCE):
        own = places[start : start + MOST_AT_ONCE]
        labels = given[start : start + MOST_AT_ONCE]
        chances = out_of_fold_chances(
            [texts[m] for m in own],
            labels.tolist(),
            [groups[m] for m in own],
            classes=len(names),
            told=partial(_refuse_guessing, skill=LEAST_SKILL / 3),  # one fold can be unlucky
        )
        _refuse_guessing(chances, labels, skill=LEAST_SKILL)
        findings += [
            _finding(material.all[own[k]], names, labels[k], better, chances[k])
            for k, better in suspects(chances, labels)
            if chances[k, better] - chances[k, labels[k]] >= LEAST_MARGIN
        ]
    return sorted(findings, key=lambda finding: -(finding.score or 0))


def suspects(chances: Chances, given: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Rows whose label is probably wrong, each with the label that fits, by normalised margin.

    Args:
        chances: `[N, K]`, of rows that the model had not seen.
        given: `[N]` labels, 0 to K - 1; each occurs.
    """
    n = np.arange(len(given))
    thresholds = np.array([chances[given == j, j].mean() for j in range(chances.shape[1])])
    confident = np.where(chances >= thresholds, chances, -1.0)
    counted = confident.argmax(axis=1)
    wrong = (
        (confident.max(axis=1) >= 0)  # counted as anything at all
        & (counted != given)
        & (chances.argmax(axis=1) == counted)
    )
    margin = chances[n, given] - chances[n, counted]
    return [(int(k), int(counted[k])) for k in sorted(np.flatnonzero(wrong), key=lambda k: margin[k])]


def _judged(material: Material) -> tuple[list[int], npt.NDArray[np.int64], list[str]]:
    """Examples whose label is frequent enough: their places, their labels as numbers, the labels' names."""
    counts = Counter(material.answers)
    names = sorted(label for label, n in counts.items() if n >= LEAST_PER_LABEL)
    number = {label: k for k, label in enumerate(names)}
    places = [m for m, label in enumerate(material.answers) if label in number]
    if len(names) < 2 or len(places) < LEAST_EXAMPLES:
        raise NotApplicableError(
            f"{len(names)} of {len(counts)} labels have the {LEAST_PER_LABEL} examples that a model needs "
            f"to judge them, and together {len(places)}; it takes two labels and {LEAST_EXAMPLES} examples"
        )
    if len(names) > MOST_LABELS:
        raise NotApplicableError(f"{len(names)} labels are too many for a fast model, {MOST_LABELS} the most")
    spelt = {
        label: example.answer.strip() for label, example in zip(material.answers, material.all, strict=True)
    }
    return places, np.array([number[material.answers[m]] for m in places]), [spelt[name] for name in names]


def _groups(material: Material) -> list[Hashable]:
    groups: list[Hashable] = list(range(len(material.all)))
    for cluster in material.like_requests:
        for m in cluster.members:
            groups[m] = cluster.members[0]
    named = {e.group: groups[m] for m, e in reversed(list(enumerate(material.all))) if e.group is not None}
    return [groups[m] if e.group is None else named[e.group] for m, e in enumerate(material.all)]


def _text(example: Example) -> str:
    return "\n".join(m.content for m in example.request if m.role != "system")


def _refuse_guessing(chances: Chances, given: npt.NDArray[np.int64], *, skill: float) -> None:
    right = float((chances.argmax(axis=1) == given).mean())
    usual = float(np.bincount(given).max() / len(given))
    if right < usual + skill * (1 - usual):
        raise NotApplicableError(
            f"a fast model gets {right:.0%} of the labels right, always saying the most frequent one "
            f"{usual:.0%}: it cannot tell which are wrong"
        )


def _finding(
    example: Example, names: Sequence[str], label: int, better: int, chances: npt.NDArray[np.float64]
) -> Finding:
    margin = float(chances[better] - chances[label])
    return Finding(
        check="label_error",
        severity="warning" if margin >= SURE else "info",
        score=margin,
        message=f"labelled {shown(names[label], 30)}, reads like {shown(names[better], 30)} "
        f"({chances[label]:.0%} against {chances[better]:.0%})",
        fix="read it, and correct the label or leave it: a model that never saw it is surprised by it",
        examples=(example,),
    )
