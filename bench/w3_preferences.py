"""W3: preference pairs, the prompt as long as each answer: 128 tokens each.

The prompt is the beginning of a passage of QuAC, the preferred answer is how it goes on, the other one
is the beginning of another passage. No two prompts start with the same token.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from bench.peers import TrlSettings
from bench.plan import Row
from bench.texts import passages
from bench.workload import Example, Goal, TrainingWorkload

if TYPE_CHECKING:
    from luthier.chat import ChatFormat

PART = 128


def preference_examples(chat: ChatFormat, count: int) -> list[Example]:
    """Pairs of prompt + preferred answer and prompt + other answer."""
    texts = passages(chat.tokenizer, count + 1, least=2 * PART)
    weights = (0.0,) * PART + (1.0,) * PART
    return [
        (Row(tuple(text[: 2 * PART]), weights), Row((*text[:PART], *other[:PART]), weights))
        for text, other in itertools.pairwise(texts)
    ]


WORKLOADS = (
    TrainingWorkload(
        "w3",
        "DPO, the prompt as long as each answer: 128 + 128 + 128 tokens",
        Goal(speed=3.0),
        "dpo",
        4,
        preference_examples,
        (TrlSettings(4), TrlSettings(2), TrlSettings(1)),
    ),
)
