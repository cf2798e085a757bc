"""W4: a GRPO update on frozen rollouts: 8 answers of 128 tokens to a prompt of 512, advantages given.

The prompt is the beginning of a passage of QuAC. One answer is how it goes on, the others are the
beginnings of other passages. Advantages are drawn: they change no time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.peers import TrlSettings
from bench.plan import Row
from bench.texts import passages
from bench.workload import Example, Goal, TrainingWorkload

if TYPE_CHECKING:
    from luthier.chat import ChatFormat

PROMPT, ANSWER, SAMPLES = 512, 128, 8


def group_examples(chat: ChatFormat, count: int) -> list[Example]:
    """Groups of a prompt with 8 answers each."""
    longer = passages(chat.tokenizer, count, least=PROMPT + ANSWER)
    answers = passages(chat.tokenizer, count + SAMPLES, least=ANSWER)
    weights = (0.0,) * PROMPT + (1.0,) * ANSWER
    groups = []
    for number, text in enumerate(longer):
        prompt = text[:PROMPT]
        others = [own[:ANSWER] for own in answers if own[0] != text[0]]
        chosen = [others[(number + k) % len(others)] for k in range(SAMPLES - 1)]
        groups.append(
            tuple(Row((*prompt, *answer), weights) for answer in (text[PROMPT : PROMPT + ANSWER], *chosen))
        )
    return groups


def advantages(rows: Sequence[Sequence[int]]) -> list[float]:
    """Of a group's answers, drawn by their token ids: the same on both sides.

    They do not add up to 0, so that the loss is no difference of equal numbers and can be compared.
    """
    return [random.Random(str(list(ids))).uniform(-1, 1) for ids in rows]


WORKLOADS = (
    TrainingWorkload(
        "w4",
        "GRPO update on frozen rollouts: 8 answers of 128 tokens to a prompt of 512",
        Goal(speed=4.0),
        "grpo",
        1,
        group_examples,
        (TrlSettings(8), TrlSettings(4), TrlSettings(2), TrlSettings(1)),
    ),
)
