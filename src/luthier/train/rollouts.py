"""Rollouts: the answers that a model writes while it is trained, what they are worth, and what is learnt.

Legend: a *group* is the answers to one prompt, T the trained tokens of an answer (its terminator too).

The prompts of a step are answered as one batch of generation, which computes each prompt once, and scored
as forests, once with the weights as they are and once as they were before training. All answers of a step
are sampled from one stream of its own, so that a training that was stopped and goes on samples the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import TrainingError
from luthier.examples.example import Example
from luthier.forest import pack, score
from luthier.forest.logprobs import Model
from luthier.generate import Generated, generate
from luthier.methods.method import Item
from luthier.methods.online import Online, Sample, diagnose
from luthier.record import write_jsonl
from luthier.train.outputs import outputs_of
from luthier.train.updates import Updates

SCORED_TOKENS = 2048  # executed at a time, as `forest.score` does
# What answers to examples are worth, in order; None where one could not be scored.
Reward = Callable[[Sequence[Example], Sequence[str]], Sequence[float | None]]


@dataclass
class Rollouts:
    """What an online method's steps train on.

    Attributes:
        untrained: gives the model as it was before training, for as long as it is entered.
        max_new_tokens: room for an answer.
        seed: of the sampling.
        folder: gets `STEP.jsonl`, the answers of each step with their rewards, to be read.
    """

    model: Model
    method: Online
    chat: ChatFormat
    reward: Reward
    untrained: Callable[[], AbstractContextManager[Model]]
    max_new_tokens: int
    seed: int
    folder: Path | None = None

    def __call__(self, batch: Sequence[Item], step: int) -> Updates:
        """Answer the prompts among the items of a step; the others are trained on as they are.

        Raises:
            TrainingError: no answer could be scored.
        """
        prompts = [item for item in batch if item.asked is not None]
        if not prompts:
            return Updates([list(batch)])
        groups = self._sample(prompts, step)
        if not any(groups):
            raise TrainingError(
                f"none of the answers of step {step + 1} could be scored, so nothing can be learnt",
                fix="look at the grader that gives the reward",
            )
        learnt = self.method.learn([group for group in groups if group])
        plain = [item for item in batch if item.asked is None]
        return Updates(self._parts(learnt, plain, step), diagnose([group for group in groups if group]))

    def _sample(self, prompts: Sequence[Item], step: int) -> list[list[Sample]]:
        """The scored answers to each prompt."""
        count = self.method.samples
        asked = [item for item in prompts for _ in range(count)]
        written = generate(
            self.model,
            [list(item.sequences[0].ids) for item in asked],
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.chat.stop_ids,
            temperature=self.method.temperature,
            seed=stream_of(self.seed, step),
        )
        examples = [item.asked for item in asked if item.asked is not None]
        pairs = zip(examples, written, strict=True)
        texts = [self.chat.answer(answer.ids, example.asked) for example, answer in pairs]
        rewards = self.reward(examples, texts)
        items = [answered(item, answer) for item, answer in zip(asked, written, strict=True)]
        samples = self._known(items, rewards, written)
        if self.folder is not None:
            self._keep(step, items, texts, rewards, samples)
        return [
            [sample for sample in samples[i : i + count] if sample is not None]
            for i in range(0, len(samples), count)
        ]

    def _known(
        self, items: Sequence[Item], rewards: Sequence[float | None], written: Sequence[Generated]
    ) -> list[Sample | None]:
        """The samples; None in the place of an answer that could not be scored."""
        scored = [place for place, reward in enumerate(rewards) if reward is not None]
        chosen = [items[place] for place in scored]
        now = self._outputs(chosen)
        before: Sequence[torch.Tensor | None] = [None] * len(chosen)
        # how far training has led is told of every method, unless that took a second model
        if self.method.needs_reference or isinstance(self.model, PeftModel):
            with self.untrained() as model:
                before = logps_of(model, chosen)
        samples: list[Sample | None] = [None] * len(items)
        for place, (policy, values), reference in zip(scored, now, before, strict=True):
            reward = rewards[place]
            assert reward is not None
            samples[place] = Sample(
                items[place], float(reward), written[place].finished, policy, reference, values
            )
        return samples

    def _outputs(self, items: Sequence[Item]) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Log-probabilities of the answers' tokens, and the value of the state before each."""
        if self.method.head is None:
            return [(logps, None) for logps in logps_of(self.model, items)]
        found: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for group in pack([item.sequences[0].ids for item in items], SCORED_TOKENS):
                outputs = outputs_of(self.model, self.method, [items[i] for i in group])
                found |= {i: both.cpu() for i, (both,) in zip(group, outputs, strict=True)}
        return [(found[i][:, 0], found[i][:, 1]) for i in range(len(items))]

    def _parts(self, learnt: Sequence[Item], plain: Sequence[Item], step: int) -> list[list[Item]]:
        """Passes over the answers in minibatches; what is only imitated is in the first pass."""
        parts: list[list[Item]] = []
        for epoch in range(self.method.epochs):
            order = [*learnt, *plain] if epoch == 0 else list(learnt)
            random.Random(f"{self.seed}/{step}/{epoch}").shuffle(order)
            count = min(self.method.minibatches, len(order))
            parts += [order[i::count] for i in range(count)]
        return parts

    def _keep(
        self,
        step: int,
        items: Sequence[Item],
        texts: Sequence[str],
        rewards: Sequence[float | None],
        samples: Sequence[Sample | None],
    ) -> None:
        assert self.folder is not None
        rows = []
        for item, text, reward, sample in zip(items, texts, rewards, samples, strict=True):
            row = {"where": item.where, "answer": text, "reward": reward}
            if sample is not None:
                row |= {"finished": sample.finished, "logprob": float(sample.policy.sum())}
                if sample.reference is not None:
                    row["kl"] = float((sample.policy - sample.reference).sum())
            rows.append(row)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(self.folder / f"{step + 1:06}.jsonl", rows)


def logps_of(model: Model, items: Sequence[Item]) -> list[torch.Tensor]:
    """Of the trained tokens of items of one sequence each, without gradients: `[T]` float32 on the CPU."""
    return score(model, [item.sequences[0].ids for item in items], needed=[item.flags[0] for item in items])


def answered(prompt: Item, answer: Generated) -> Item:
    """The prompt with an answer, whose every token is trained, the stop token that came included."""
    ids = (*answer.ids, *([] if answer.stop_id is None else [answer.stop_id]))
    before = prompt.sequences[0].ids
    return Item(
        prompt.where,
        (TrainingSequence((*before, *ids), (0.0,) * len(before) + (1.0,) * len(ids)),),
    )


def stream_of(seed: int, what: int | str) -> int:
    """A seed of its own for the sampling of one step, or of something with a name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{what}".encode()).digest()[:8], "big") >> 1
