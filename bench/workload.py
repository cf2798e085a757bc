"""What a supervised fine-tuning workload is, and the table of all workloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.plan import Row

if TYPE_CHECKING:
    from luthier.chat import ChatFormat


@dataclass(frozen=True)
class Goal:
    """What we want to reach: times faster than the peer, and share of its peak memory."""

    speed: float
    memory: float | None = None


@dataclass(frozen=True)
class SftWorkload:
    """Supervised fine-tuning, Luthier against TRL.

    Attributes:
        rows: builds the given number of sequences with the model's chat format.
    """

    name: str
    what: str
    goal: Goal
    rows: Callable[[ChatFormat, int], list[Row]]


PLANNED = {
    "w1": "SFT, lengths vary 30 to 600 tokens, nothing shared",
    "w2a": "SFT, system prompt of about 45 shared tokens in about 105",
    "w2b": "SFT, few-shot prompt of about 350 shared tokens in about 410",
    "w3": "DPO, prompt as long as each answer",
    "w4": "GRPO update on frozen rollouts, 8 per prompt",
    "w5": "sweep of 8 learning rates to the same validation loss",
    "w6a": "choice scoring, 4 choices, 600-token context",
    "w6b": "generation for grading, 128 prompts with a shared prefix",
    "w7": "negative control: nothing shared, equal lengths of 512 tokens",
    "w8": "start-up: `luthier --help`",
    "w9": "audit of 1,000,000 examples",
}
