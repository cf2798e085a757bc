"""Expert iteration: answer several times, keep the best answer, imitate it, and again.

Anthony et al. 2017 (arXiv 1705.08439) name it; for language models RAFT (Dong et al. 2023, arXiv
2304.06767), best of n, or rejection sampling. Of the answers y_i of a prompt with rewards R_i:

    y = the first of the highest reward that is finished
    kept where R > mean of R_i, or with a threshold where R >= threshold
    L = - sum over kept answers and their tokens of log p(y_t) / tokens       that is SFT's loss, `sft.py`

It is the simplest of the online methods: no advantages, no ratios, no reference. An answer that the limit
cut off is never imitated: it would teach to go on for ever. A prompt whose answers are all as good teaches
nothing, unless a threshold says that they are good enough.

Where it ends: at the best answer alone, as nothing holds it near the base; a step towards the best of n
goes no further than KL = log n - (n - 1) / n, so few steps stay near it. Items without a rollout (replayed
answers, canaries) are imitated as the kept answers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item
from luthier.methods.online import Online, Sample, prompt_items
from luthier.methods.sft import SFT
from luthier.methods.surrogate import Logps


@dataclass(frozen=True)
class BestOf(Online):
    """Imitates the best of its own answers."""

    samples: int = 8
    temperature: float = 1.0
    threshold: float | None = None
    epochs: int = 1
    minibatches: int = 1

    name = "best_of"
    needs_reference = False

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One prompt per example. Raises DataError where an example cannot be written."""
        return prompt_items(examples, chat, system, samples=self.samples)

    def learn(self, groups: Sequence[Sequence[Sample]]) -> list[Item]:
        """The answers to imitate, at most one of each group; they have no rollout."""
        return [sample.item for sample in map(self._best, groups) if sample is not None]

    def total(self, items: Sequence[Item]) -> float:
        """Summed weight of the trained tokens."""
        return SFT().total(items)

    def loss(self, items: Sequence[Item], logps: Logps) -> torch.Tensor:
        """Weighted sum of negative log-likelihoods."""
        return SFT().loss(items, logps)

    def _best(self, group: Sequence[Sample]) -> Sample | None:
        finished = [sample for sample in group if sample.finished]
        if not finished:
            return None
        best = max(finished, key=lambda sample: sample.reward)
        rewards = [sample.reward for sample in group]
        if self.threshold is not None:
            return best if best.reward >= self.threshold else None
        return best if min(rewards) < max(rewards) and best.reward > sum(rewards) / len(rewards) else None
