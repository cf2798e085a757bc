"""Answers that do not have the form expected: a JSON Schema, a list of labels, or what nearly all have.

A given schema or list is followed to the letter. Without one the answers decide, and only where at least
nine in ten agree, so an honest variety of shapes is no violation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luthier.audit.answer_shape import LEAST_OBJECTS, NEARLY_ALL, deviations, shape_of
from luthier.audit.finding import Finding, Material, NotApplicableError, Severity, shown
from luthier.examples.answers import parse_structure
from luthier.examples.example import Example

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

Look = Callable[[str], list[str]]
_TOLD = 3


def find_schema_violations(material: Material) -> list[Finding]:
    """One finding per answer; score is how many faults it has.

    Raises:
        NotApplicableError: no form is given, and none is to be seen in the answers.
    """
    severity: Severity = "error"
    fix = "write the answer in the form that is expected, or change what is expected"
    if material.schema is not None:
        look = against_schema(material.schema)
    elif material.labels:
        look = against_labels(material.labels)
    else:
        look, severity, fix = _against_most(material), "warning", "write the answer in the form of the others"
    return [
        finding_of(faults, "schema_violation", severity, fix, example)
        for example in material.all
        if (faults := look(example.answer))
    ]


def finding_of(faults: Sequence[str], check: str, severity: Severity, fix: str, example: Example) -> Finding:
    """One finding of an example that has faults: the first of them are told, and how many there are."""
    message = "; ".join(faults[:_TOLD]) + ("; …" if len(faults) > _TOLD else "")
    return Finding(check, severity, float(len(faults)), message, fix, (example,))


def against_schema(schema: Mapping[str, Any]) -> Look:
    """What is wrong with an answer under a JSON Schema (draft 2020-12 where it names none)."""
    from jsonschema.validators import Draft202012Validator, validator_for

    validator = validator_for(schema, default=Draft202012Validator)(schema)

    def look(answer: str) -> list[str]:
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError) as error:
            return [f"the answer is not JSON ({error})"]
        return schema_faults(validator, value, "the answer")

    return look


def schema_faults(validator: Validator, value: Any, whole: str) -> list[str]:
    """What a validator of JSON Schemas says of a value, with the place in it; `whole` names the value."""
    return [
        f"{'.'.join(map(str, fault.absolute_path)) or whole}: {fault.message[:120]}"
        for fault in validator.iter_errors(value)
    ]


def against_labels(labels: Sequence[str]) -> Look:
    """What is wrong with an answer that must be one of some labels, to the letter."""
    known = frozenset(labels)
    listed = ", ".join(shown(label, 20) for label in list(known)[:4]) + (", …" if len(known) > 4 else "")
    return lambda answer: [] if answer in known else [f"{shown(answer, 30)} is not one of {listed}"]


def _against_most(material: Material) -> Look:
    values = [parse_structure(example.answer) for example in material.all]
    known = [value for value in values if value is not None]
    if len(known) < max(LEAST_OBJECTS, NEARLY_ALL * len(values)):
        raise NotApplicableError("the answers have no form that nine in ten of them agree on")
    usual = shape_of(known)

    def look(answer: str) -> list[str]:
        value = parse_structure(answer)
        return ["the answer is not JSON"] if value is None else list(dict.fromkeys(deviations(value, usual)))

    return look
