"""Copies, rewordings and look-alikes: exact and near duplicates, leakage, conflicts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from bench.checks.lookalikes import Change, kinds, template_groups
from bench.checks.planting import (
    ANSWERS,
    Planted,
    example,
    linked_lines,
    material,
    plant_pairs,
)
from bench.checks.rates import Tally
from bench.checks.rewording import HEAVY, SLIGHT, change_surface
from luthier.audit.exact_duplicate import find_exact_duplicates
from luthier.audit.finding import Finding, Material
from luthier.audit.label_conflict import find_label_conflicts
from luthier.audit.leakage import find_leakage
from luthier.audit.near_duplicate import find_near_duplicate_clusters

SURFACE = {"other capitals, spaces, marks": change_surface}
# An answer may change with the order of clauses or a word put in, so that a conflict need not see these.
CONFLICTS = ("a courtesy added", "one slip of the pen", "a contraction", "numbers as words or digits")
Check = Callable[[Material], list[Finding]]


def exact_copies(texts: Sequence[str], each: int, seed: int) -> list[Tally]:
    """Copies with the same answer, among look-alikes with the same answer."""
    planted = plant_pairs(texts, SURFACE, {**kinds(texts), **_only(SLIGHT)}, each=each, seed=seed)
    return _measured(planted, find_exact_duplicates, alike=True)


def near_copies(texts: Sequence[str], each: int, seed: int) -> list[Tally]:
    """Rewordings of every strength, among look-alikes."""
    planted = plant_pairs(texts, {**SLIGHT, **HEAVY}, kinds(texts), each=each, seed=seed)
    return _measured(planted, find_near_duplicate_clusters, alike=True)


def conflicts(texts: Sequence[str], each: int, seed: int) -> list[Tally]:
    """The same request with another answer, among look-alikes with another answer."""
    faults: dict[str, Change] = {**SURFACE, **{name: SLIGHT[name] for name in CONFLICTS}}
    planted = plant_pairs(texts, faults, kinds(texts), each=each, seed=seed)
    return _measured(planted, find_label_conflicts, alike=False)


def leaked_rows(texts: Sequence[str], each: int, seed: int) -> list[Tally]:
    """Rows of the test that came into the training data as they are, or reworded, among look-alikes.

    A third of the texts is the test; only they leak.
    """
    held = len(texts) // 3
    planted = plant_pairs(
        texts[:held], {**SURFACE, **SLIGHT, **HEAVY}, kinds(texts[:held]), each=each, seed=seed
    )
    rng = random.Random(seed)
    rows = [example(text, rng.choice(ANSWERS), line) for line, text in enumerate(planted.texts)]
    more = [example(text, rng.choice(ANSWERS), len(rows) + n) for n, text in enumerate(texts[held:])]
    sides = {"train": rows[held:] + more, "test": rows[:held]}
    linked = linked_lines(find_leakage(material(sides)))
    return [*planted.tallies(linked), _strays(planted, linked, len(texts))]


def templates(check: Check) -> list[Tally]:
    """Questions of one form with different things in it: every one that is flagged is flagged wrongly."""
    groups = list(template_groups())
    texts = [text for group in groups for text in group]
    rows = [example(text, ANSWERS[line % 4], line) for line, text in enumerate(texts)]
    linked = linked_lines(check(material({"all": rows})))
    return [Tally("questions of one form", len(linked), len(texts), fault=False)]


def _measured(planted: Planted, check: Check, *, alike: bool) -> list[Tally]:
    rng = random.Random(len(planted.texts))
    answers = [rng.choice(ANSWERS) for _ in planted.texts]
    for pairs in planted.pairs.values():
        for a, b in pairs:
            other = ANSWERS[(ANSWERS.index(answers[a]) + 1) % len(ANSWERS)]
            answers[b] = answers[a] if alike else other
    rows = [example(text, answers[line], line) for line, text in enumerate(planted.texts)]
    linked = linked_lines(check(material({"all": rows})))
    return [*planted.tallies(linked), _strays(planted, linked, len(rows))]


def _strays(planted: Planted, linked: Mapping[int, set[int]], total: int) -> Tally:
    return Tally("other texts of the set", planted.stray_links(linked), total, fault=False)


def _only(rules: Mapping[str, Change]) -> dict[str, Change]:
    return {"one slip of the pen": rules["one slip of the pen"]}
