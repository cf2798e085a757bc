"""Calls that cannot be made: of tools that are not on offer, or with arguments that their schema forbids.

An example that offers no tools tells nothing of them, since many files describe them in the system prompt. An
argument that is null and not required counts as left out: tables write it so.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any

from luthier.audit.finding import Finding, Material, shown
from luthier.audit.schema_violation import finding_of, schema_faults
from luthier.examples.example import Example

Look = Callable[[Any], list[str]]
_FIX = "correct the call, or the tools on offer: a model learns to call as it is shown"


def find_bad_calls(material: Material) -> list[Finding]:
    """One finding per example with calls that its own tools do not allow; score is how many faults it has."""
    looks: dict[str, Look] = {}  # by the JSON of a schema: most examples offer the same tools
    return [
        finding_of(faults, "tool_call", "error", _FIX, example)
        for example in material.all
        if example.tools and (faults := _faults(example, looks))
    ]


def _faults(example: Example, looks: dict[str, Look]) -> list[str]:
    offered = {str(tool["function"]["name"]): tool["function"].get("parameters") for tool in example.tools}
    faults = []
    for call in (call for message in example.messages for call in message.tool_calls):
        if call.name not in offered:
            near = difflib.get_close_matches(call.name, offered, n=1)
            meant = f"did you mean {near[0]}?" if near else f"on offer: {shown(', '.join(offered), 60)}"
            faults.append(f"calls {shown(call.name, 40)}, which is not on offer ({meant})")
        elif schema := offered[call.name]:
            key = json.dumps(schema, sort_keys=True)
            look = looks.get(key) or looks.setdefault(key, _against(schema))
            faults += [f"{shown(call.name, 40)}: {told}" for told in look(json.loads(call.arguments))]
    return list(dict.fromkeys(faults))


def _against(schema: Mapping[str, Any]) -> Look:
    """What is wrong with arguments; nothing under a schema that is none, or that names others elsewhere."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing.exceptions import Unresolvable

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
    except SchemaError:
        return lambda arguments: []
    validator = kind(schema)
    required = schema.get("required", ())

    def look(arguments: Any) -> list[str]:
        said = {name: value for name, value in arguments.items() if value is not None or name in required}
        try:
            return schema_faults(validator, said, "arguments")
        except Unresolvable:
            return []

    return look
