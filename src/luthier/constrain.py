"""Constraints on what may be written: one of the labels, or JSON under a schema.

A constraint makes *walks*, one for each row that is written: before every token a walk says which tokens may
come next, afterwards it is told which one came. The decoder knows no more than that. A stop token ends a
walk, so it is allowed only where what was written is whole.

JSON Schema is compiled by llguidance (MIT, Rust), whose masks cost tens of microseconds a token. Labels need
no grammar: they are a trie of token ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from luthier.errors import DataError, ModelError, RecipeError

if TYPE_CHECKING:
    import torch

    from luthier.chat import ChatFormat

Trie = dict[int, "Trie"]


class Walk(Protocol):
    """What one row has written so far, as a constraint sees it."""

    def allow(self, allowed: np.ndarray) -> None:
        """Set `allowed[token]`, `[V]` bool and all false, for every token that may come next."""
        ...

    def take(self, token: int) -> None:
        """The token that was written, which was an allowed one."""
        ...


class Constraint(Protocol):
    """What answers must be.

    Attributes:
        room: tokens, the stop token included, that any answer needs at most; 0 where that is not known.
    """

    @property
    def room(self) -> int: ...

    def walk(self) -> Walk:
        """The beginning of one row."""
        ...


def forbid_others(logits: torch.Tensor, walks: Sequence[Walk]) -> None:
    """Set to -inf, in place, what each row may not write next. logits: `[B, V]`, a row for each walk.

    Raises:
        ModelError: a row may write nothing at all.
    """
    import torch

    allowed = np.zeros(tuple(logits.shape), dtype=np.bool_)
    for row, walk in zip(allowed, walks, strict=True):
        walk.allow(row)
    if not allowed.any(axis=1).all():
        raise ModelError("the constraint allows no token of this model's vocabulary")
    logits.masked_fill_(torch.from_numpy(~allowed).to(logits.device), float("-inf"))


class OneOfLabels:
    """The answer is one of the labels, spelt as the chat format trains it.

    Args:
        labels: texts of answers, repeats welcome.

    Raises:
        DataError: there are none.
    """

    def __init__(self, labels: Iterable[str], chat: ChatFormat) -> None:
        self.labels = tuple(dict.fromkeys(labels))
        if not self.labels:
            raise DataError("there are no labels to choose among")
        self._trie: Trie = {}
        self.room = 0
        for label in self.labels:
            ids = _answer_ids(chat, label)
            self.room = max(self.room, len(ids))
            place = self._trie
            for token in ids[:-1]:
                place = place.setdefault(token, {})
            place |= {stop: {} for stop in chat.stop_ids}

    def walk(self) -> Walk:
        """At the root of the trie."""
        return _TrieWalk(self._trie)


class _TrieWalk:
    def __init__(self, place: Trie) -> None:
        self._place = place

    def allow(self, allowed: np.ndarray) -> None:
        allowed[list(self._place)] = True

    def take(self, token: int) -> None:
        self._place = self._place[token]


class JsonUnderSchema:
    """The answer is JSON that is valid under a schema, its keys in the order of the schema's properties.

    An answer that is cut off by the limit of tokens is the beginning of such JSON.

    Args:
        schema: a JSON Schema; `anyOf`, `enum`, `$ref` into itself and the like are known to llguidance.
        examples: answers that show how JSON is to be spaced; where they do not agree, any way is allowed.

    Raises:
        RecipeError: llguidance does not know a keyword of the schema.
        ModelError: the package is missing, or the tokenizer is not a fast one.
    """

    room = 0

    def __init__(self, schema: Any, chat: ChatFormat, examples: Sequence[str] = ()) -> None:
        try:
            import llguidance
        except ImportError:
            raise ModelError(
                "answers under a JSON Schema need the package llguidance, which is not installed",
                fix="pip install llguidance, or leave out `constrain`",
            ) from None
        self._matcher = llguidance.LLMatcher
        self._chat = chat
        options: Any = {"whitespace_flexible": False, **_spacing(examples)} if examples else {}
        self._grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)
        problem = llguidance.LLMatcher.validate_grammar(self._grammar, None)
        if problem:
            raise RecipeError(
                f"answers cannot be kept to this schema: {problem.splitlines()[0]:.200}",
                where="answer_schema",
                fix="simplify the schema, or use `constrain: none`",
            )
        # what the template writes before every answer, such as "<think>"
        objects = [_answer_ids(chat, text) for text in ("{}", "[]")]
        self._opening = commonprefix(objects)  # noqa: RUF071 token ids are what is compared

    def walk(self) -> Walk:
        """Before the answer's first token."""
        return _GrammarWalk(self._compiled.deep_copy(), self._opening, self._chat.stop_ids)

    @cached_property
    def _compiled(self) -> Any:
        return self._matcher(_grammar_tokenizer(self._chat), self._grammar, log_level=0)


class _GrammarWalk:
    def __init__(self, matcher: Any, opening: Sequence[int], stop_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._opening = list(opening)
        self._stop_ids = stop_ids

    def allow(self, allowed: np.ndarray) -> None:
        if self._opening:
            allowed[self._opening[0]] = True
            return
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        known = np.unpackbits(bits, bitorder="little", count=min(8 * len(bits), len(allowed)))
        allowed[: len(known)] = known
        if self._matcher.is_error():
            raise ModelError(f"the grammar of the schema: {self._matcher.get_error().splitlines()[0]:.200}")

    def take(self, token: int) -> None:
        if self._opening:
            self._opening.pop(0)
        elif token not in self._stop_ids:
            self._matcher.consume_token(token)


@lru_cache(maxsize=2)  # a second for a large vocabulary
def _grammar_tokenizer(chat: ChatFormat) -> Any:
    from llguidance.hf import from_tokenizer

    try:
        tokenizer: Any = chat.tokenizer  # a slow one is refused there
        return from_tokenizer(tokenizer, eos_token=sorted(chat.stop_ids))
    except ValueError as error:
        raise ModelError(f"this tokenizer cannot keep answers to a schema: {error}") from None


def order_properties(schema: Any, values: Sequence[Any]) -> Any:
    """The schema with `properties` in the order in which the values' objects have them.

    The order means nothing to a schema, but a grammar writes keys in it, and a tuned model has learned the
    order of its examples. Keys that no value has come last, as they were.
    """
    if not isinstance(schema, Mapping):
        return schema
    ordered = dict(schema)
    objects = [value for value in values if isinstance(value, dict)]
    items = [item for value in values if isinstance(value, list) for item in value]
    if isinstance(schema.get("properties"), Mapping):
        properties = schema["properties"]
        seen = dict.fromkeys(key for value in objects for key in value if key in properties)
        ordered["properties"] = {
            key: order_properties(properties[key], [value[key] for value in objects if key in value])
            for key in [*seen, *(key for key in properties if key not in seen)]
        }
    if "items" in schema:
        ordered["items"] = order_properties(schema["items"], items)
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list):
            ordered[key] = [order_properties(part, values) for part in schema[key]]
    return ordered


def _spacing(examples: Sequence[str]) -> dict[str, Any]:
    """Options of the grammar: how the examples put spaces into JSON, where they do it alike."""
    for item, key in ((", ", ": "), (",", ":")):
        if all(_is_written(text, item, key) for text in examples):
            return {"item_separator": item, "key_separator": key}
    return {"whitespace_flexible": True}


def _is_written(text: str, item: str, key: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    spaced = (json.dumps(value, ensure_ascii=escape, separators=(item, key)) for escape in (False, True))
    return text.strip() in spaced


def _answer_ids(chat: ChatFormat, answer: str) -> list[int]:
    """Token ids of an answer as it is trained, the terminator last."""
    sequence = chat.sequence([{"role": "user", "content": "q"}], answer)
    return list(sequence.ids[sequence.prompt_tokens :])
