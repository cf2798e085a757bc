"""Secrets and personal data of a record replaced by placeholders, as the audit finds them.

The same mail address is `[MAIL_1]` in all turns of a conversation. Numbers are given in the order of the
turns, so that a conversation that grows begins with the same masked words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from luthier.audit.masking import Placeholders
from luthier.collect.log_turns import Turn


def placeholders_for(turns: Iterable[Turn]) -> Placeholders:
    """Placeholders whose numbers none of the turns has already."""
    return Placeholders(text for turn in turns for text in _texts(turn))


def mask_turn(turn: Turn, placeholders: Placeholders) -> Turn:
    """A turn whose words and calls are masked."""
    masked = {**turn, "content": placeholders.put(turn["content"])}
    if "tool_calls" in turn:
        masked["tool_calls"] = [
            {**call, "function": mask_value(call["function"], placeholders)} for call in turn["tool_calls"]
        ]
    return masked


def mask_value(value: Any, placeholders: Placeholders) -> Any:
    """A JSON value whose texts are masked."""
    if isinstance(value, str):
        return placeholders.put(value)
    if isinstance(value, Mapping):
        return {key: mask_value(part, placeholders) for key, part in value.items()}
    return [mask_value(item, placeholders) for item in value] if isinstance(value, list) else value


def _texts(turn: Turn) -> list[str]:
    return [turn["content"], *(call["function"]["arguments"] for call in turn.get("tool_calls", ()))]
