"""W1 and W7: nothing is shared. Lengths from 30 to 600 tokens, and the negative control of 512 each.

Passages of QuAC, cut to length; no two of them start with the same token. The second half of each is
trained, as it would be for prompts as long as their answers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.peers import TrlSettings
from bench.plan import Row
from bench.texts import passages
from bench.workload import Example, Goal, TrainingWorkload

if TYPE_CHECKING:
    from luthier.chat import ChatFormat

SHORTEST, LONGEST = 30, 600
EQUAL = 512


def varied_lengths(count: int) -> list[int]:
    """Lengths that fill the logarithmic range evenly, from the shortest to the longest."""
    ratio = math.log(LONGEST / SHORTEST)
    return [round(SHORTEST * math.exp(ratio * i / max(1, count - 1))) for i in range(count)]


def varied_examples(chat: ChatFormat, count: int) -> list[Example]:
    """W1."""
    texts = passages(chat.tokenizer, count, least=LONGEST)
    return [(cut(text, length),) for text, length in zip(texts, varied_lengths(count), strict=True)]


def equal_examples(chat: ChatFormat, count: int) -> list[Example]:
    """W7."""
    return [(cut(text, EQUAL),) for text in passages(chat.tokenizer, count, least=EQUAL)]


def cut(ids: list[int], length: int) -> Row:
    """The first `length` tokens, the second half of them trained."""
    prompt = length // 2
    return Row(tuple(ids[:length]), (0.0,) * prompt + (1.0,) * (length - prompt))


WORKLOADS = (
    TrainingWorkload(
        "w1",
        "SFT, lengths from 30 to 600 tokens, nothing shared",
        Goal(speed=3.0, memory=0.4),
        "sft",
        8,
        varied_examples,
        (
            TrlSettings(8),
            TrlSettings(4),
            TrlSettings(2),
            TrlSettings(1),
            TrlSettings(2, "rebalanced"),
            TrlSettings(8, "free"),
            TrlSettings(1, "packed"),
            TrlSettings(4, "grouped"),
        ),
    ),
    TrainingWorkload(
        "w7",
        "negative control: SFT, nothing shared, 512 tokens each",
        Goal(speed=1.6, never_slower=True),
        "sft",
        4,
        equal_examples,
        (TrlSettings(4), TrlSettings(2), TrlSettings(1), TrlSettings(2, "free")),
        compiles=True,
    ),
)
