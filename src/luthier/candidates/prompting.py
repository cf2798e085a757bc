"""Candidates that only change the prompt: as it is, with fixed examples, with the nearest examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import bm25s

from luthier.candidates.answer import Messages
from luthier.chat import ChatFormat
from luthier.examples.example import Example


def prompt_messages(example: Example, chat: ChatFormat, system: str | None) -> Messages:
    """The request as it is, with the system prompt."""
    return chat.with_system([m.as_dict() for m in example.request], system)


def few_shot_messages(
    examples: Sequence[Example],
    train: Sequence[Example],
    chat: ChatFormat,
    system: str | None,
    *,
    shots: int,
    seed: int,
) -> dict[str, Messages]:
    """Every request after the same `shots` training examples, shown as earlier turns.

    The examples are drawn with the seed, one answer at a time: an answer is not shown again while
    others have been shown less often.
    """
    order = list(train)
    random.Random(seed).shuffle(order)
    chosen: list[Example] = []
    shown: Counter[str] = Counter()
    while order and len(chosen) < shots:
        place = min(range(len(order)), key=lambda i: shown[order[i].answer])
        chosen.append(order.pop(place))
        shown[chosen[-1].answer] += 1
    return {example.id: _with_turns(example, chosen, chat, system) for example in examples}


def retrieval_messages(
    examples: Sequence[Example],
    train: Sequence[Example],
    chat: ChatFormat,
    system: str | None,
    *,
    shots: int,
) -> dict[str, Messages]:
    """Every request after the `shots` training examples nearest to it by BM25, the nearest last."""
    shots = min(shots, len(train))
    index = bm25s.BM25()
    corpus = _words([example.input for example in train])
    searchable = any(corpus)  # BM25 is undefined for texts without a single word
    if searchable:
        index.index(corpus, show_progress=False)
    queries = _words([example.input for example in examples])
    messages = {}
    for example, words in zip(examples, queries, strict=True):
        scores = index.get_scores(words) if words and searchable else [0.0] * len(train)
        best = sorted(range(len(train)), key=lambda i: (-scores[i], i))[:shots]
        messages[example.id] = _with_turns(example, [train[i] for i in reversed(best)], chat, system)
    return messages


def _words(texts: Sequence[str]) -> list[list[str]]:
    tokens = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return [list(words) for words in tokens]


def _with_turns(example: Example, shown: Sequence[Example], chat: ChatFormat, system: str | None) -> Messages:
    turns: Messages = []
    for other in shown:
        turns += [{"role": "user", "content": other.input}, {"role": "assistant", "content": other.answer}]
    request = prompt_messages(example, chat, system)
    head = [m for m in request if m["role"] in ("system", "developer")]
    return head + turns + [m for m in request if m["role"] not in ("system", "developer")]
