"""YAML as recipes are written: strict when read, plain when written."""

from __future__ import annotations

from typing import Any

import yaml


class StrictYaml(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error, not a value that is quietly lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in YAML, but for repeated keys."""
        keys: set[Any] = set()
        for name, _ in node.value:
            key = self.construct_object(name, deep=True)
            if isinstance(key, str) and key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is there twice", name.start_mark
                )
            keys |= {key} if isinstance(key, str) else set()
        return super().construct_mapping(node, deep)


class PlainYaml(yaml.SafeDumper):
    """Texts as they are, but in quotes where YAML would take a character for the end of a line."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


PlainYaml.add_representer(str, _represent_text)
