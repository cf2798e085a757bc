"""The shape of JSON answers: which keys they have, and which types stand where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

TYPES = {bool: "true or false", str: "text", int: "number", float: "number", list: "list", dict: "object"}
NEARLY_ALL = 0.9
LEAST_OBJECTS = 20  # fewer agree by chance
DEEPEST = 20  # levels that are looked at
RARE = 2  # a key that is there no more often is a slip
CHOICES, REPEATS = 20, 5  # a text is one of a few choices when there are so few, each so often


@dataclass
class Place:
    """What stands at one place of many values.

    Attributes:
        seen: values at this place.
        types: how many of each.
        keys: for objects, what stands under each key.
        items: for lists, what their items are.
        texts: how often each text occurs; empty when there are more than can be choices.
    """

    seen: int = 0
    types: Counter[str] = field(default_factory=Counter)
    keys: dict[str, Place] = field(default_factory=dict)
    items: Place | None = None
    texts: Counter[str] | None = field(default_factory=Counter)

    def add(self, value: Any, depth: int = 0) -> None:
        """Count one value more, down to `DEEPEST` levels."""
        self.seen += 1
        self.types[type_of(value)] += 1
        if depth == DEEPEST:
            return
        if isinstance(value, dict):
            for key, part in value.items():
                self.keys.setdefault(key, Place()).add(part, depth + 1)
        elif isinstance(value, list):
            self.items = self.items or Place()
            for part in value:
                self.items.add(part, depth + 1)
        elif isinstance(value, str) and self.texts is not None:
            self.texts[value] += 1
            if len(self.texts) > 5 * CHOICES:
                self.texts = None

    @cached_property
    def choices(self) -> frozenset[str]:
        """The texts that stand here where they are a few, each of them often; a rare one is no choice."""
        usual = {text: n for text, n in (self.texts or {}).items() if n >= REPEATS}
        few = 0 < len(usual) <= CHOICES and sum(usual.values()) >= NEARLY_ALL * self.types["text"]
        return frozenset(usual) if few else frozenset()

    @cached_property
    def expected(self) -> frozenset[str]:
        """The keys that nearly every object here has."""
        return frozenset(k for k, own in self.keys.items() if own.seen >= NEARLY_ALL * self.types["object"])

    @cached_property
    def slips(self) -> frozenset[str]:
        """The keys that hardly any object has; none where most are so, since keys are data then."""
        objects = self.types["object"]
        rare = [key for key, own in self.keys.items() if own.seen <= min(RARE, (1 - NEARLY_ALL) * objects)]
        return frozenset(rare if len(rare) <= (1 - NEARLY_ALL) * objects else ())


def type_of(value: Any) -> str:
    """`text`, `number`, `true or false`, `null`, `list` or `object`."""
    return "null" if value is None else TYPES.get(type(value), "null")


def article(kind: str) -> str:
    """`a number`, `an object`, `true or false`."""
    return {"object": "an object", "null": "null", "true or false": "true or false"}.get(kind, f"a {kind}")


def shape_of(values: Sequence[Any]) -> Place:
    """What stands where in all of these parsed JSON values."""
    whole = Place()
    for value in values:
        whole.add(value)
    return whole


def walk(place: Place, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Place]]:
    """Every place with its path of keys, where `[]` stands for the items of a list."""
    yield path, place
    for key, own in place.keys.items():
        yield from walk(own, (*path, key))
    if place.items is not None:
        yield from walk(place.items, (*path, "[]"))


def at(value: Any, path: Sequence[str]) -> list[Any]:
    """What a value has at a path."""
    found = [value]
    for key in path:
        if key == "[]":
            found = [part for whole in found if isinstance(whole, list) for part in whole]
        else:
            found = [whole[key] for whole in found if isinstance(whole, dict) and key in whole]
    return found


def deviations(value: Any, usual: Place, path: str = "") -> list[str]:
    """How a value differs from what nearly all have, in words; empty when it does not.

    A key is expected where nine in ten objects have it, and unexpected where nine in ten do not and it is
    hardly ever there (twice at most). A type is wrong where nine in ten have another, `null` apart.
    """
    where = path or "the answer"
    kind, (type_, count) = type_of(value), usual.types.most_common(1)[0]
    if kind != type_ and count >= NEARLY_ALL * usual.seen:
        return (
            [] if kind == "null" else [f"{where} is a {kind}, not a {type_}".replace("a object", "an object")]
        )
    if isinstance(value, dict):
        return _of_object(value, usual, path)
    if isinstance(value, list) and usual.items is not None and usual.items.seen >= LEAST_OBJECTS:
        return [said for part in value for said in deviations(part, usual.items, f"{path}[]")]
    if isinstance(value, str) and (known := usual.choices) and value not in known:
        listed = ", ".join(sorted(known)[:4]) + (", …" if len(known) > 4 else "")
        return [f"{where} is {value[:30]!r}, not one of {listed}"]
    return []


def _of_object(value: Mapping[str, Any], usual: Place, path: str) -> list[str]:
    said = [f"no {_joined(path, key)!r}" for key in usual.expected if key not in value]
    for key, part in value.items():
        if key in usual.slips:
            said.append(f"{_joined(path, key)!r} is not expected")
        elif key in usual.keys and usual.keys[key].seen >= LEAST_OBJECTS:
            said += deviations(part, usual.keys[key], _joined(path, key))
    return sorted(said)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
