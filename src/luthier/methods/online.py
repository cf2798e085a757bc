"""Methods that learn from answers the model has just written: what they are given, what they make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch

from luthier.chat import ChatFormat, TrainingSequence
from luthier.examples.example import Example
from luthier.methods.method import Item, Method
from luthier.methods.preference import answer_sequences


@dataclass(frozen=True, eq=False)
class Sample:
    """An answer that the model wrote, of T trained tokens: its terminator too, where one came.

    Attributes:
        item: one sequence, prompt and answer; nothing known of it beyond that.
        reward: of the whole answer.
        finished: whether a terminator ended it, not the limit of new tokens.
        policy: `[T]` log-probabilities under the model that wrote it, float32 on the CPU.
        reference: the same before training; None where the method does not need it (`needs_reference`) and it
            is not at hand either. A loss without a KL term must not look at it.
        values: what the value head expected before each token; None where `Method.head` is None.
    """

    item: Item
    reward: float
    finished: bool
    policy: torch.Tensor
    reference: torch.Tensor | None = None
    values: torch.Tensor | None = None


class Online(Method, Protocol):
    """A method whose items are made anew at every step.

    Attributes:
        samples: answers to each prompt.
        temperature: at which they are sampled; losses are of the model at temperature 1.
        epochs: passes over the answers of a step, each a shuffle of its own.
        minibatches: optimizer updates in a pass.
    """

    @property
    def samples(self) -> int: ...

    @property
    def temperature(self) -> float: ...

    @property
    def epochs(self) -> int: ...

    @property
    def minibatches(self) -> int: ...

    def learn(self, groups: Sequence[Sequence[Sample]]) -> list[Item]:
        """What is trained on: items with a `rollout` (or plain ones, to imitate), from a step's answers.

        Args:
            groups: the samples of each prompt of the step, at least one each.

        Returns:
            Nothing, where no answer is worth learning from.
        """
        ...


def is_online(method: Method) -> TypeGuard[Online]:
    """Whether a method learns from answers that the model writes while it is trained."""
    return hasattr(method, "learn")


def prompt_items(
    examples: Sequence[Example], chat: ChatFormat, system: str | None, *, samples: int
) -> list[Item]:
    """One item per example: its prompt, to be answered `samples` times, about as long as its own answer.

    Raises:
        DataError: as `ChatFormat.sequence`, with the example's place.
    """
    items = []
    for example in examples:
        (given,) = answer_sequences(example, [example.answer], chat, system)
        prompt = given.ids[: given.prompt_tokens]
        to_come = samples * len(given.ids) - len(prompt)
        unasked = TrainingSequence(prompt, (0.0,) * len(prompt))
        items.append(Item(example.where, (unasked,), asked=example, to_come=to_come))
    return items


def spread_of(values: torch.Tensor) -> torch.Tensor:
    """Standard deviation of `[N]` values, by N - 1; 0 of a single one."""
    return values.std() if len(values) > 1 else values.new_zeros(())


def diagnose(groups: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """Numbers to log of a step's answers: what shows learning, and what shows that the reward is gamed.

    Returns:
        reward, reward_std: over all answers.
        length: mean tokens of an answer.
        finished: share of the answers with a terminator.
        distinct: share of a prompt's answers that differ from those before them, mean over prompts.
        no_variance: share of the prompts whose answers all have one reward: comparing them teaches nothing.
        kl, kl_k3: from the model before training, nats per answer, where its log-probabilities are known: two
            estimates of the same (see `surrogate.py`), the second never below 0.
    """
    samples = [sample for group in groups for sample in group]
    rewards = torch.tensor([sample.reward for sample in samples], dtype=torch.float64)
    lengths = [len(sample.policy) for sample in samples]
    distinct = [len({sample.item.sequences[0].ids for sample in group}) / len(group) for group in groups]
    alike = [len({sample.reward for sample in group}) == 1 for group in groups]
    numbers = {
        "reward": float(rewards.mean()),
        "reward_std": float(spread_of(rewards)),
        "length": sum(lengths) / len(lengths),
        "finished": sum(sample.finished for sample in samples) / len(samples),
        "distinct": sum(distinct) / len(distinct),
        "no_variance": sum(alike) / len(alike),
    }
    gaps = [s.reference.double() - s.policy.double() for s in samples if s.reference is not None]
    if gaps:
        numbers["kl"] = -sum(float(gap.sum()) for gap in gaps) / len(gaps)
        numbers["kl_k3"] = sum(float((torch.expm1(gap) - gap).sum()) for gap in gaps) / len(gaps)
    return numbers
