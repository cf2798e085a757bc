"""What a probe measures with: base and tuned, one after the other, and the run's own examples."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from luthier.chat import ChatFormat, TrainingSequence
from luthier.examples import Example, Split
from luthier.forest import score
from luthier.forest.logprobs import Model
from luthier.generate import generate
from luthier.models.kept import kept
from luthier.progress import Advance

VERSION = 1  # raise it when the same inputs would give other results of a base model
Messages = list[dict[str, str]]
Which = Literal["base", "tuned"]
T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """One of the two models while it is measured.

    Attributes:
        system: the system prompt that this side is asked with.
        seen: an example as this side sees it: tuned may have been trained without the examples' own prompts.
        advance: moves the bar that is shown meanwhile.
    """

    model: Model
    chat: ChatFormat
    system: str | None
    advance: Advance
    seen: Callable[[Example], Example] = lambda example: example

    def conversation(self, example: Example) -> Messages:
        """The request of an example, as this side is asked it."""
        messages = self.seen(example).asked
        return self.chat.with_system(messages, self.system)

    def sequence(self, example: Example) -> TrainingSequence:
        """The last trained answer of an example after its prompt, as this side is trained on it."""
        return self.chat.training(self.seen(example), self.system)[-1]

    def write(self, conversations: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Greedy answers to conversations that end with the user's turn."""
        prompts = [self.chat.prompt(messages) for messages in conversations]
        written = self.continue_ids(prompts, max_new_tokens)
        return [self.chat.answer(ids, asked) for ids, asked in zip(written, conversations, strict=True)]

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """The tokens that greedy decoding writes after each prompt, without the stop token."""
        written = generate(
            self.model,
            prompts,
            max_new_tokens=max_new_tokens,
            stop_ids=self.chat.stop_ids,
            advance=self.advance,
        )
        return [list(answer.ids) for answer in written]

    def losses(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        """Negative log-likelihood per trained token of each sequence, in nats."""
        needed = [[weight > 0 for weight in sequence.weights[1:]] for sequence in sequences]
        ids = [sequence.ids for sequence in sequences]
        return [-float(v.mean()) for v in score(self.model, ids, needed=needed, advance=self.advance)]

    def totals(self, sequences: Sequence[Sequence[int]], scored: Sequence[int]) -> list[float]:
        """Summed log-probability of the last `scored[i]` tokens of each sequence."""
        needed = [
            [place + 1 >= len(ids) - count for place in range(len(ids) - 1)]
            for ids, count in zip(sequences, scored, strict=True)
        ]
        return [float(v.sum()) for v in score(self.model, sequences, needed=needed, advance=self.advance)]


class OpenSide(Protocol):
    """Opens one side under a bar of `total` items."""

    def __call__(self, which: Which, what: str, total: int) -> contextlib.AbstractContextManager[Side]: ...


@dataclass(frozen=True)
class Subjects:
    """Base and tuned of a run with its examples.

    Attributes:
        identity: hash of the base's files, under which its results are kept.
        system: the system prompt that the base is asked with.
        max_new_tokens: the longest answer the run allows.
        items: public items that forgetting asks.
        canaries: how many made-up sentences were trained along.
        seed: of the run, which drew the canaries.
    """

    split: Split
    chat: ChatFormat
    identity: str
    system: str | None
    max_new_tokens: int
    items: int
    canaries: int
    seed: int
    open: OpenSide

    def both(
        self, name: str, total: int, inputs: Mapping[str, Any], work: Callable[[Side], T]
    ) -> dict[str, T]:
        """`work` done with base and with tuned; of the base it is kept.

        Args:
            name: shown on the bars, with the side.
            total: how far `work` moves the bar.
            inputs: with the base model all that decides its result, as JSON.
            work: gives JSON values: lists, not tuples.
        """
        shown = name.replace("_", " ")
        key = {"model": self.identity, "system": self.system, **inputs, "version": VERSION}
        with self.open("base", f"{shown}: base", total) as side:
            base: T = kept(f"probe-{name.replace(' ', '-')}", key, lambda: work(side))
        with self.open("tuned", f"{shown}: tuned", total) as side:
            return {"base": base, "tuned": work(side)}


class Grade(Protocol):
    """Scores of answers by the recipe's grader; None where an answer cannot be scored."""

    def __call__(self, cases: Sequence[tuple[str, Example]]) -> list[float | None]: ...


@dataclass(frozen=True)
class Evidence:
    """What a report is made with, besides what was measured: no model.

    Attributes:
        margin: the largest change for the worse that still ships; None: a trend.
        seed: of the resampling behind the intervals.
        items: public items that forgetting asked.
    """

    split: Split
    margin: float | None
    seed: int
    items: int
    grade: Grade


def drawn(examples: Sequence[Example], count: int) -> list[Example]:
    """At most `count` of the examples, by the hash of their ids: the same ones whatever their order."""
    return sorted(examples, key=lambda example: hashlib.sha256(example.id.encode()).digest())[:count]
