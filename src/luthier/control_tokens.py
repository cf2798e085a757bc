"""Control tokens and the text that merely spells them.

A message that says `<|im_end|>` must stay text, while the same string written by the chat template is a
token. So strings of messages are *marked* before they go through the template: each control string becomes a
private mark. Afterwards marks and control strings change places, and a copy of the tokenizer, in which the
control tokens are named by the marks, reads everything in one pass, with the context that merges and
prefix spaces depend on. Ids, merges and normalization are those of the tokenizer itself.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from luthier.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


class ControlTokens:
    """The strings that are structure for one tokenizer and one chat template.

    Attributes:
        ids: control string -> id: the special tokens, and added tokens that the template writes (Qwen's
            `<think>`). Added words and whitespace tokens are vocabulary, not structure.
        nonce: digits that no text holds by chance.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._tokenizer = tokenizer
        added = {t.content: (i, t.special) for i, t in tokenizer.added_tokens_decoder.items() if t.content}
        self._special = {text for text, (_, special) in added.items() if special}
        self.ids = {
            text: i
            for text, (i, special) in added.items()
            if special or (text in template and not text.isspace() and not text.isalnum())
        }
        # Digits only: no template filter (upper, trim, tojson) changes them.
        self.nonce = str(secrets.randbits(80))
        self._marks = {text: f"\ue000{self.nonce}.{n}\ue001" for n, text in enumerate(self.ids)}
        self._swap = self._marks | {mark: text for text, mark in self._marks.items()}
        self._any, self._any_mark = _one_of(self.ids), _one_of(self._marks.values())
        self._any_swap = _one_of(self._swap)
        self._any_special = self._not_spoken = _one_of(self._special)
        self._forbidden: set[str] = set()

    def forbid(self, text: str) -> None:
        """Mark `text` in answers too, though it may be no special token (an end that a template writes)."""
        self._forbidden.add(text)
        self._not_spoken = _one_of({*self._special, *self._forbidden})

    def find(self, text: str) -> re.Match[str] | None:
        """The first special token in `text`, or else the first other control token."""
        return self._any_special.search(text) or self._any.search(text)

    def find_all_special(self, text: str) -> list[str]:
        """Every special token in `text`, in order."""
        return self._any_special.findall(text)

    def drop_special(self, text: str) -> str:
        """`text` as decoding shows it: without special tokens."""
        return self._any_special.sub("", text)

    def mark(self, text: str, *, answer: bool) -> str:
        """`text` with marks for the control strings in it.

        An answer keeps the structure that the model itself writes, such as `<think>`, but no special token.
        """
        pattern = self._not_spoken if answer else self._any
        return pattern.sub(lambda match: self._marks[match[0]], text)

    def mark_all(self, value: Any) -> Any:
        """A JSON value with marks for the control strings in its texts and keys."""
        if isinstance(value, str):
            return self.mark(value, answer=False)
        if isinstance(value, Mapping):
            return {self.mark_all(key): self.mark_all(item) for key, item in value.items()}
        return [self.mark_all(item) for item in value] if isinstance(value, list | tuple) else value

    def unmark(self, text: str) -> str:
        """Marked text as a person reads it."""
        return self._any_mark.sub(lambda match: self._swap[match[0]], text)

    def read(self, text: str) -> list[int]:
        """Token ids of marked text: control strings are tokens, marks are the text they stand for.

        Raises:
            ModelError: the text holds marks and the tokenizer is not a fast one.
        """
        if self.nonce not in text:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
            # More control ids than control strings: a normalizer made one out of a message's text.
            if sum(i in self._all_ids for i in ids) == len(self._any.findall(text)):
                return ids
        swapped = self._any_swap.sub(lambda match: self._swap[match[0]], text)
        return list(self._renamed.encode(swapped, add_special_tokens=False).ids)

    def read_on(self, text: str) -> list[int]:
        """Token ids of marked text that follows other text, so nothing is put in front of it."""
        added = self._tokenizer.added_tokens_decoder.values()
        # A token with `rstrip` would swallow the text's leading whitespace.
        anchor = next((t.content for t in added if t.special and not t.rstrip), None)
        return self.read(text) if anchor is None else self.read(anchor + text)[1:]

    @cached_property
    def _all_ids(self) -> frozenset[int]:
        return frozenset(self.ids.values())

    @cached_property
    def _renamed(self) -> Tokenizer:
        from tokenizers import Tokenizer

        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                "a message spells a control token, and this tokenizer cannot keep it apart from a real one",
                fix="use a model with a tokenizer.json, or take the control token out of the text",
            )
        renamed = Tokenizer.from_str(json.dumps(_rename(json.loads(backend.to_str()), self._marks)))
        moved = [text for text, i in self.ids.items() if renamed.token_to_id(self._marks[text]) != i]
        if moved:
            raise ModelError(
                f"the tokenizer's id of {moved[0]!r} is ambiguous: text could pass for control tokens"
            )
        return renamed


def _one_of(texts: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _rename(spec: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename tokens throughout a serialized tokenizer (tokenizer.json), in place; their ids stay."""
    spec["truncation"] = spec["padding"] = None
    for token in spec["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = spec["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(text, text): i for text, i in vocabulary.items()}
    else:  # Unigram
        model["vocab"] = [[names.get(text, text), score] for text, score in vocabulary]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not names.keys() & {*pair, "".join(pair)}]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return spec
