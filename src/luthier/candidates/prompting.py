"""Candidates that only change the prompt: as it is, with fixed examples, with the nearest examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from luthier.candidates.answer import Messages
from luthier.candidates.documents import Passage
from luthier.candidates.embedding import Embed
from luthier.candidates.retrieval import By, Index
from luthier.chat import ChatFormat
from luthier.examples.example import Example

PASSAGES = "Passages that may help:"


def without_system(example: Example) -> Example:
    """The example without a system prompt of its own, where another is to take its place."""
    kept = tuple(m for m in example.messages if m.role not in ("system", "developer"))
    return example if len(kept) == len(example.messages) else replace(example, messages=kept)


def seen_by_tuned(examples: Sequence[Example], tuned_system: str | None) -> list[Example]:
    """Examples as the tuned model is given them: a `tuned_system`, even none (""), replaces their own."""
    return list(examples) if tuned_system is None else [without_system(example) for example in examples]


def prompt_messages(example: Example, chat: ChatFormat, system: str | None) -> Messages:
    """The request as it is, with the system prompt."""
    return chat.with_system(example.asked, system)


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


class Nearby:
    """What retrieval may show: training examples and passages of the user's documents, searchable.

    Args:
        train: examples; none of the held-out sides.
        passages: of documents, at most `shown_passages` of them for a request.
        by, embed: how what is near is found (`retrieval.Index`).
    """

    def __init__(
        self,
        train: Sequence[Example],
        passages: Sequence[Passage] = (),
        *,
        shown_passages: int = 0,
        by: By = "bm25",
        embed: Embed | None = None,
    ) -> None:
        self._train = train
        self._passages = passages
        self._shown_passages = shown_passages
        self._examples = Index([example.input for example in train], by=by, embed=embed)
        titled = [f"{passage.title}\n{passage.text}" for passage in passages]
        self._texts = Index(titled, by=by, embed=embed) if titled else None

    def near(self, queries: Sequence[str], shots: int) -> list[tuple[list[Example], list[Passage]]]:
        """For each query the nearest examples and passages, the nearest last."""
        examples = self._examples.nearest(queries, shots)
        texts: list[list[int]] = [[]] * len(queries)
        if self._texts is not None:
            texts = self._texts.nearest(queries, self._shown_passages)
        return [
            ([self._train[i] for i in reversed(a)], [self._passages[i] for i in reversed(b)])
            for a, b in zip(examples, texts, strict=True)
        ]


def retrieval_messages(
    examples: Sequence[Example],
    nearby: Nearby,
    chat: ChatFormat,
    system: str | None,
    *,
    shots: int,
) -> dict[str, Messages]:
    """Every request after the `shots` training examples and the passages nearest to it, the nearest last."""
    found = nearby.near([example.input for example in examples], shots)
    return {
        example.id: _with_passages(_with_turns(example, shown, chat, system), passages)
        for example, (shown, passages) in zip(examples, found, strict=True)
    }


def _with_passages(messages: Messages, passages: Sequence[Passage]) -> Messages:
    """Passages in front of the request, which is the last message of the user."""
    if not passages:
        return messages
    shown = "\n\n".join(f"[{passage.title}]\n{passage.text}" for passage in passages)
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=len(messages) - 1)
    content = f"{PASSAGES}\n\n{shown}\n\n{messages[last]['content']}"
    return [*messages[:last], {**messages[last], "content": content}, *messages[last + 1 :]]


def _last_exchange(example: Example) -> Messages:
    """What the user last asked, every call since then with its result, and the answer."""
    start = max((i for i, m in enumerate(example.request) if m.role == "user"), default=None)
    if start is None or not any(m.tool_calls or m.role == "tool" for m in example.messages[start:]):
        return [{"role": "user", "content": example.input}, {"role": "assistant", "content": example.answer}]
    return [message.as_dict() for message in example.messages[start:]]


def _with_turns(example: Example, shown: Sequence[Example], chat: ChatFormat, system: str | None) -> Messages:
    turns: Messages = []
    for other in shown:
        turns += _last_exchange(other)
    request = prompt_messages(example, chat, system)
    head = [m for m in request if m["role"] in ("system", "developer")]
    return head + turns + [m for m in request if m["role"] not in ("system", "developer")]
