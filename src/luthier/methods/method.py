"""What a training method is: its items, their total weight, and their summed loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.forest.soft_targets import SoftTargets
from luthier.models.heads import HeadKind


@dataclass(frozen=True, eq=False)
class Rollout:
    """What was known of a sampled answer of T trained tokens when it was written; float32 on the CPU.

    Attributes:
        advantages: `[T]`, how much better than expected each token turned out.
        policy: `[T]` log-probabilities under the model that wrote it; None where its one update is made
            by that very model, whose ratio is 1.
        reference: `[T]` log-probabilities before training; None where the method has no KL term.
        values, returns: `[T]` what the value head expected, and what came; None without a value head.
    """

    advantages: torch.Tensor
    policy: torch.Tensor | None = None
    reference: torch.Tensor | None = None
    values: torch.Tensor | None = None
    returns: torch.Tensor | None = None


@dataclass(frozen=True)
class Mismatch:
    """The prompt of an item with an answer to another prompt.

    Attributes:
        reference: log-probability of its trained tokens before training; None until that is computed.
    """

    sequence: TrainingSequence
    reference: float | None = None

    @property
    def flags(self) -> list[bool]:
        """Which predictions are scored: `len - 1` flags."""
        return [weight > 0 for weight in self.sequence.weights[1:]]


@dataclass(frozen=True)
class Item:
    """One example as the loss sees it: all sequences that must be scored together.

    A token is *trained* where its weight is above 0 and a token precedes it: the first of a sequence is
    predicted from nothing.

    Attributes:
        where: what messages call it.
        soft: a teacher's distributions at the trained tokens of each sequence, which then take the place of
            the tokens themselves; empty where there is no teacher.
        wanted: whether each sequence is an answer to give or one not to give; empty where the item states
            no preference and is simply imitated.
        reference: log-probability of each sequence's trained tokens before training; empty where the method
            needs none.
        mismatch: what a reference point is estimated from; None where there is none, or no need.
        baseline: that reference point, the same for a whole batch; None where the method has none.
        rollout: what was known of the item's one answer when the model wrote it; None where it was given.
        asked: the example whose request is still to be answered by the model; then `sequences` is the prompt.
        margins: by how much each sequence, the best first, is known to be worse than the first; empty where
            nothing is known.
        label: what the item's one sequence is an instance of; None where nothing is classified.
        beside: whether it is no example, but trained along: replayed answers, made-up sentences.
        to_come: tokens, about, by which its answers with their prompts will exceed that one prompt.
        repeats: how often it is seen in an epoch, on average over epochs.
    """

    where: str
    sequences: tuple[TrainingSequence, ...]
    soft: tuple[SoftTargets, ...] = field(default=(), repr=False, compare=False)
    wanted: tuple[bool, ...] = ()
    reference: tuple[float, ...] = field(default=(), repr=False, compare=False)
    mismatch: Mismatch | None = field(default=None, repr=False, compare=False)
    baseline: float | None = field(default=None, repr=False, compare=False)
    rollout: Rollout | None = field(default=None, repr=False, compare=False)
    asked: Example | None = field(default=None, repr=False, compare=False)
    margins: tuple[float, ...] = ()
    label: str | None = None
    beside: bool = False
    to_come: int = 0
    repeats: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens before sharing: what the batch budget counts."""
        return sum(len(sequence.ids) for sequence in self.sequences) + self.to_come

    @property
    def trained_tokens(self) -> int:
        """Tokens with a loss, before sharing, whatever their weights."""
        return sum(map(sum, self.flags))

    @property
    def flags(self) -> list[list[bool]]:
        """Which predictions are trained: `len - 1` flags for each sequence, for `forest.logprobs`."""
        return [[weight > 0 for weight in sequence.weights[1:]] for sequence in self.sequences]

    @property
    def weights(self) -> list[float]:
        """The trained tokens' weights, sequence after sequence: one for each log-probability of the item."""
        return [weight for sequence in self.sequences for weight in sequence.weights[1:] if weight > 0]


def refuse_unwanted(examples: Sequence[Example]) -> None:
    """Refuse examples whose answer should not be given, where it would be imitated.

    Raises:
        DataError: there is one.
    """
    if unwanted := next((example for example in examples if not example.wanted), None):
        raise DataError(
            "the answer should not be given, so it cannot be imitated",
            where=unwanted.where,
            fix="leave it out, or use `method: kto`, which learns from it",
        )


def read_at_end(ids: Sequence[int]) -> TrainingSequence:
    """A sequence whose loss is one of the whole: of its tokens the last alone counts as trained."""
    return TrainingSequence(tuple(ids), (0.0,) * (len(ids) - 1) + (1.0,))


class Scoring(Protocol):
    """Log-probabilities without gradients: `forest.score` of a model."""

    def __call__(
        self, sequences: Sequence[Sequence[int]], *, needed: Sequence[Sequence[bool]]
    ) -> list[torch.Tensor]:
        """One float32 CPU tensor per sequence: its flagged predictions, in order."""
        ...


class Method(Protocol):
    """Loss of a batch = `loss(items) / total(items)`, over the whole effective batch.

    `loss` is a sum, so that gradients accumulated over micro-batches of any sizes equal the
    gradient of the batch in one piece.
    """

    @property
    def name(self) -> str:
        """What recipes and records call it."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether items need `reference`: computed once before training, where it is asked for."""
        ...

    @property
    def head(self) -> HeadKind | None:
        """Which head of the model the loss reads.

        What `loss` is given of each sequence: `[T]` log-probabilities of its trained tokens (None); the
        head's outputs `[K]` at its last token (`sequence`); `[T, 2]`, log-probabilities and the head's value
        of the state before each of these tokens (`tokens`).
        """
        return None

    @property
    def labels(self) -> tuple[str, ...]:
        """What each of the K outputs of a `sequence` head stands for; empty for a reward, K = 1."""
        return ()

    @property
    def learns_unwanted(self) -> bool:
        """Whether `items` takes examples that are not `wanted` too; no other method is given them."""
        return False

    def within(self, longest: int | None) -> Method:
        """The method for a model that takes so many tokens at most, None: any; most cut nothing."""
        return self

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """The training items of examples, in order. Raises DataError where nothing is trained."""
        ...

    @property
    def pace(self) -> float:
        """What `learning_rate: auto` is multiplied by: 1 for imitation, from whose rule it comes.

        Preferences and rewards take a tenth. TRL's rates for them are a twentieth of its rate for imitation;
        ours is a judgement in between, fitted to nothing.
        """
        return 1.0

    def settle(self, items: Sequence[Item]) -> Method:
        """The method with what it takes from the training items as a whole; most take nothing.

        Raises:
            DataError: nothing can be learnt from these items.
        """
        return self

    def prepare(self, items: Sequence[Item], score: Scoring) -> list[Item]:
        """The items with what the loss has to know of all of them at once, before the first gradient.

        Args:
            items: a whole effective batch, or the whole validation side.
            score: no-grad log-probabilities of the model as it is, `score(sequences, needed=flags)`.
        """
        return list(items)

    def total(self, items: Sequence[Item]) -> float:
        """What the summed loss is divided by: trained tokens, pairs, ..."""
        ...

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed loss, given what `head` says of every item's sequences: most often log-probabilities."""
        ...

    def measure(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> Mapping[str, float]:
        """Numbers to log of an update beside its loss, from what the loss was given; most have none."""
        return {}

    def losses(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> list[float]:
        """Each item's own mean loss per trained token, kept as its history.

        Only where answers that were given are imitated does it say something of these answers; most methods
        keep none.

        Args:
            logps: what the loss was given.
        """
        return []
