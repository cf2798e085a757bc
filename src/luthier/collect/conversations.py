"""Logs repeat themselves: every turn of a chat is logged with all turns before it.

A conversation is known by the hashes of its beginnings. A record whose whole conversation is the beginning
of another record's request is an earlier turn of that one.

Legend: the key of n turns is a hash of their roles, words and calls, in order; ids and edges of white space
do not count, for clients send back what they were told in their own spelling.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from luthier.collect.log_turns import Turn


@dataclass(frozen=True)
class Keys:
    """The key of a whole conversation, and those of its beginnings that end with an earlier answer."""

    whole: str
    earlier: tuple[str, ...]


def conversation_keys(messages: Sequence[Turn]) -> Keys:
    """The keys of a conversation that ends with an answer."""
    key, earlier = "", []
    for position, turn in enumerate(messages):
        key = _next_key(key, turn)
        if turn["role"] == "assistant" and position + 1 < len(messages):
            earlier.append(key)
    return Keys(key, tuple(earlier))


@dataclass
class Seen:
    """What is remembered of all records: keys alone, 32 characters each.

    Attributes:
        counts: how often each conversation was taken.
        earlier: conversations that others go on from.
        refused: conversations that were left out; their last answer is none to learn.
    """

    counts: Counter[str] = field(default_factory=Counter)
    earlier: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def take(self, keys: Keys) -> None:
        """Remember one that was taken."""
        self.counts[keys.whole] += 1
        self.earlier.update(keys.earlier)

    def is_untaught(self, key: str) -> bool:
        """Whether the answer that a beginning ends with was left out where it was logged."""
        return key in self.refused and key not in self.counts

    def group(self, keys: Keys) -> str | None:
        """The key of the shortest logged beginning, the same for all turns of a chat; None for a lone one."""
        first = next((key for key in keys.earlier if key in self.counts), None)
        return first or (keys.whole if keys.whole in self.earlier else None)

    def draw(self, limit: int | None, seed: int, *, every_turn: bool) -> set[str] | None:
        """The keys of `limit` conversations drawn by their hash with the seed; None for all of them.

        A conversation stays drawn when others are added, unless they take its place by a smaller hash.
        """
        if limit is None:
            return None
        open_ = (key for key in self.counts if every_turn or key not in self.earlier)
        return set(heapq.nsmallest(limit, open_, key=lambda key: _hash(f"{seed} {key}")))


def untrain(messages: Sequence[Turn], untaught: Iterable[bool]) -> list[Turn]:
    """The messages with weight 0 on those earlier answers that are not to be learnt, one bool for each."""
    flags = iter(untaught)
    earlier = (turn["role"] == "assistant" and next(flags) for turn in messages[:-1])
    found = [{**turn, "weight": 0} if flag else turn for turn, flag in zip(messages, earlier, strict=False)]
    return [*found, messages[-1]]


def _next_key(key: str, turn: Turn) -> str:
    called = [call["function"] for call in turn.get("tool_calls", ())]
    calls = [(function["name"], _plain(function["arguments"])) for function in called]
    return _hash(json.dumps([key, turn["role"], turn["content"].strip(), calls], ensure_ascii=False))


def _plain(arguments: str) -> str:
    """Arguments without their spelling."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
