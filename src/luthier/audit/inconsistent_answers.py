"""Answers that are written in more than one way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from luthier.audit.finding import Finding, Material, counted, shown
from luthier.examples.answers import parse_structure
from luthier.examples.example import Example


def find_inconsistent_answers(material: Material) -> list[Finding]:
    """One finding per kind of inconsistency, with the examples that deviate; score is their share."""
    total = len(material.all)
    structures = [parse_structure(example.answer) for example in material.all]
    found = [
        *_mixed_json(material.all, [value is not None for value in structures]),
        *_key_sets(material.all, structures),
        *_edge_spaces(material.all),
        *(_label_spellings(material) if material.answer_kind == "label" else ()),
    ]
    return [
        Finding("inconsistent_answers", "warning", len(examples) / total, message, fix, tuple(examples))
        for message, fix, examples in found
    ]


Deviation = tuple[str, str, list[Example]]


def _mixed_json(examples: Sequence[Example], is_json: Sequence[bool]) -> list[Deviation]:
    count = sum(is_json)
    if count in (0, len(examples)):
        return []
    minority = 2 * count <= len(examples)
    members = [example for example, flag in zip(examples, is_json, strict=True) if flag is minority]
    kind, others = ("JSON", "plain text") if minority else ("not JSON", "JSON")
    message = f"{counted(len(members), 'answer')} {kind}, while the others are {others}"
    return [(message, "write every answer in one form; a model trained on both mixes them", members)]


def _key_sets(examples: Sequence[Example], structures: Sequence[object]) -> list[Deviation]:
    keys = [frozenset(map(str, value)) if isinstance(value, dict) else None for value in structures]
    counts = Counter(found for found in keys if found is not None)
    if len(counts) < 2:
        return []
    usual, _ = counts.most_common(1)[0]
    members = [e for e, found in zip(examples, keys, strict=True) if found is not None and found != usual]
    other = next(found for found in counts if found != usual)
    differences = [f"without {key!r}" for key in sorted(usual - other)]
    differences += [f"with {key!r}" for key in sorted(other - usual)]
    message = (
        f"{counted(len(members), 'JSON answer')} with other keys than most, such as {', '.join(differences)}"
    )
    return [(message, "give every answer the same keys, with null for what is missing", members)]


def _edge_spaces(examples: Sequence[Example]) -> list[Deviation]:
    members = [example for example in examples if example.answer != example.answer.strip()]
    if not members:
        return []
    message = f"{counted(len(members), 'answer')} with spaces or line breaks at an end"
    return [(message, "strip them; they are tokens the model learns to write", members)]


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
    listed = ", ".join(shown(spelling, 30) for spelling, _ in several.most_common(3))
    message = f"{counted(len(mixed), 'label')} written in several ways, such as {listed}"
    return [(message, "write each label in one way", members)]
