"""What a workload is: what both sides do, against whom, and what we want to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.peers import LmEvalSettings, TransformersSettings, TrlSettings
from bench.plan import Row

if TYPE_CHECKING:
    from luthier.chat import ChatFormat

Example = tuple[Row, ...]  # the sequences that a loss needs together


@dataclass(frozen=True)
class Goal:
    """What we want to reach.

    Attributes:
        speed: times faster than the peer.
        memory: at most this share of the peer's peak memory.
        never_slower: no pair may be slower than the peer's.
    """

    speed: float
    memory: float | None = None
    never_slower: bool = False


@dataclass(frozen=True)
class Workload:
    """What every workload has: the name it is asked for by, what it is in a line, and a goal."""

    name: str
    what: str
    goal: Goal


@dataclass(frozen=True)
class TrainingWorkload(Workload):
    """Training steps, Luthier against TRL.

    Attributes:
        batch: examples of one optimizer step.
        examples: builds the given number of examples with the model's chat format.
        candidates: what TRL is tried with.
        compiles: whether torch.compile is tried on the fastest of them.
    """

    objective: Literal["sft", "dpo", "grpo"]
    batch: int
    examples: Callable[[ChatFormat, int], list[Example]]
    candidates: tuple[TrlSettings, ...]
    compiles: bool = False


@dataclass(frozen=True)
class SweepWorkload(Workload):
    """A sweep over learning rates, Luthier's against one TRL run after the other.

    Attributes:
        rates: highest learning rates of the runs.
        steps, batch: optimizer steps of a run, which is one epoch, and examples of each.
        held_out: validation examples.
        candidates: what TRL is tried with.
    """

    rates: tuple[float, ...]
    steps: int
    batch: int
    held_out: int
    candidates: tuple[TrlSettings, ...]


@dataclass(frozen=True)
class Int8Workload(Workload):
    """Luthier on an int8 base against Luthier on the exact one: the training of another workload."""

    of: TrainingWorkload


@dataclass(frozen=True)
class Question:
    """One question as lm-eval takes it: a context and its continuations; `ids` are whole sequences.

    Attributes:
        lengths: tokens of each continuation, at the end of its sequence.
    """

    context: str
    options: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class ChoiceWorkload(Workload):
    """Log-likelihoods of the options of questions; `per_step` questions are asked at once."""

    per_step: int
    questions: Callable[[Any, int], list[Question]]
    candidates: tuple[LmEvalSettings, ...]


@dataclass(frozen=True)
class WritingWorkload(Workload):
    """Greedy continuations of prompts, `new_tokens` each."""

    new_tokens: int
    prompts: Callable[[ChatFormat], list[Sequence[int]]]
    candidates: tuple[TransformersSettings, ...]


@dataclass(frozen=True)
class StartupWorkload(Workload):
    """The time of a command that should import nothing heavy; `goal.speed` is unused."""

    seconds: float


NOT_BUILT = {
    "w9": "audit of 1,000,000 examples against a peer (`python -m bench check-speed` measures Luthier alone)",
}
