"""Answers that are written in more than one way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from luthier.audit.answer_forms import Deviation, joined_labels, line_ends, mixed_types
from luthier.audit.finding import Finding, Material, counted, shown
from luthier.examples.answers import parse_structure
from luthier.examples.example import Example

SPELLINGS_LISTED = 3
Wording = tuple[str, str]  # what was found, what to do


def find_inconsistent_answers(material: Material) -> list[Finding]:
    """One finding per kind of inconsistency, with the examples that deviate; score is their share."""
    total = len(material.all)
    structures = [parse_structure(example.answer) for example in material.all]
    found = [
        *_mixed_json(material.all, [value is not None for value in structures]),
        *_key_sets(material.all, structures),
        *_edge_spaces(material.all),
        *(_label_spellings(material) if material.answer_kind == "label" else ()),
        *_forms(material, structures),
    ]
    return [_finding(deviation, total) for deviation in found]


def find_mixed_forms(material: Material) -> list[Finding]:
    """Of `find_inconsistent_answers` what cannot be counted one example at a time."""
    structures = [parse_structure(example.answer) for example in material.all]
    return [_finding(deviation, len(material.all)) for deviation in _forms(material, structures)]


def mixed_json(members: int, *, are_json: bool) -> Wording:
    """So many answers are JSON among plain text, or the reverse."""
    kind, others = ("JSON", "plain text") if are_json else ("not JSON", "JSON")
    message = f"{counted(members, 'answer')} {kind}, while the others are {others}"
    return message, "write every answer in one form; a model trained on both mixes them"


def other_keys(members: int, usual: frozenset[str], other: frozenset[str]) -> Wording:
    """So many JSON answers have other keys than the usual ones, such as `other`."""
    differences = [f"without {key!r}" for key in sorted(usual - other)]
    differences += [f"with {key!r}" for key in sorted(other - usual)]
    message = f"{counted(members, 'JSON answer')} with other keys than most, such as {', '.join(differences)}"
    return message, "give every answer the same keys, with null for what is missing"


def edge_spaces(members: int) -> Wording:
    """So many answers begin or end with spaces."""
    message = f"{counted(members, 'answer')} with spaces or line breaks at an end"
    return message, "strip them; they are tokens the model learns to write"


def label_spellings(labels: int, spellings: Sequence[str]) -> Wording:
    """So many labels have several spellings, such as those of one of them."""
    listed = ", ".join(shown(spelling, 30) for spelling in spellings)
    message = f"{counted(labels, 'label')} written in several ways, such as {listed}"
    return message, "write each label in one way"


def _forms(material: Material, structures: Sequence[object]) -> list[Deviation]:
    joined = joined_labels(material) if material.answer_kind == "label" else []
    return [*mixed_types(material.all, structures), *line_ends(material.all), *joined]


def _finding(deviation: Deviation, total: int) -> Finding:
    message, fix, examples = deviation
    return Finding("inconsistent_answers", "warning", len(examples) / total, message, fix, tuple(examples))


def _mixed_json(examples: Sequence[Example], is_json: Sequence[bool]) -> list[Deviation]:
    count = sum(is_json)
    if count in (0, len(examples)):
        return []
    minority = 2 * count <= len(examples)
    members = [example for example, flag in zip(examples, is_json, strict=True) if flag is minority]
    return [(*mixed_json(len(members), are_json=minority), members)]


def _key_sets(examples: Sequence[Example], structures: Sequence[object]) -> list[Deviation]:
    keys = [keys_of(value) for value in structures]
    counts = Counter(found for found in keys if found is not None)
    if len(counts) < 2:
        return []
    usual, _ = counts.most_common(1)[0]
    members = [e for e, found in zip(examples, keys, strict=True) if found is not None and found != usual]
    other = next(found for found in counts if found != usual)
    return [(*other_keys(len(members), usual, other), members)]


def keys_of(structure: object) -> frozenset[str] | None:
    """The keys of a JSON object; None for anything else."""
    return frozenset(map(str, structure)) if isinstance(structure, dict) else None


def _edge_spaces(examples: Sequence[Example]) -> list[Deviation]:
    members = [example for example in examples if example.answer != example.answer.strip()]
    return [(*edge_spaces(len(members)), members)] if members else []


def _label_spellings(material: Material) -> list[Deviation]:
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for normal, example in zip(material.answers, material.all, strict=True):
        spellings[normal][example.answer.strip()] += 1
    mixed = {normal: counts for normal, counts in spellings.items() if len(counts) > 1}
    if not mixed:
        return []
    usual = {normal: counts.most_common(1)[0][0] for normal, counts in mixed.items()}
    members = [
        example
        for normal, example in zip(material.answers, material.all, strict=True)
        if normal in mixed and example.answer.strip() != usual[normal]
    ]
    several = next(iter(mixed.values()))
    several_ways = [spelling for spelling, _ in several.most_common(SPELLINGS_LISTED)]
    return [(*label_spellings(len(mixed), several_ways), members)]
