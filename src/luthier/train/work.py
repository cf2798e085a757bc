"""How much work a training is, before any of it is done: its micro-batches, and their operations.

Legend: T executed tokens, P predictions, A visible query-key pairs, V vocabulary, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch

from luthier.forest.layout import lay_out
from luthier.forest.logprobs import Model, causal_lm
from luthier.methods.method import Item
from luthier.recipe import Train
from luthier.train.batches import Shares, batches_per_epoch, epoch_batches, epoch_tokens, micro_batches

STEPS_LOOKED_AT = 200  # of a longer training the first epoch's steps, evenly drawn, stand for all


@dataclass(frozen=True)
class Work:
    """What one micro-batch computes.

    Attributes:
        executed: tokens that go through the blocks (T).
        predictions: distinct positions and next tokens that go through the head (P).
        pairs: a token and one that it attends to, itself included (A).
    """

    executed: int
    predictions: int
    pairs: int


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that decide its operations, in numbers a token is multiplied with.

    Attributes:
        frozen, trained: weights of the blocks' matrices, adapters among the trained.
        head: V d; `head_trained` when its weights get a gradient.
        attention: width of queries (heads times their width), summed over the layers.
    """

    frozen: int
    trained: int
    head: int
    head_trained: bool
    attention: int

    def step_flops(self, work: Work) -> float:
        """Forward and backward: (4 frozen + 6 trained) T + 4 V d P (6 when trained) + 12 attention A.

        A multiplication with an addition counts two. The gradient of a weight is not computed where
        it is frozen, nothing is computed twice.
        """
        blocks = (4 * self.frozen + 6 * self.trained) * work.executed
        head = (6 if self.head_trained else 4) * self.head * work.predictions
        return float(blocks + head + 12 * self.attention * work.pairs)

    def forward_flops(self, work: Work) -> float:
        """2 (frozen + trained) T + 2 V d P + 4 attention A."""
        blocks = 2 * (self.frozen + self.trained) * work.executed
        return float(blocks + 2 * self.head * work.predictions + 4 * self.attention * work.pairs)


@dataclass(frozen=True)
class Plan:
    """A training in numbers, from the very batches that it will make.

    Attributes:
        micros: the work of each micro-batch of the steps looked at; they stand for `scale` times as many.
        largest: the items of the micro-batch with the most executed tokens, then pairs.
        validation: the work of each micro-batch of one validation, of which there are `validations`.
        tokens, trained_tokens: of all epochs, before sharing.
    """

    steps: int
    micro_tokens: int
    tokens: int
    trained_tokens: int
    micros: tuple[Work, ...]
    scale: float
    largest: tuple[Item, ...]
    validation: tuple[Work, ...]
    validations: int

    @property
    def executed_tokens(self) -> int:
        """Of all epochs; exact for a training of few steps, else by the steps looked at."""
        return round(self.scale * sum(work.executed for work in self.micros))

    def flops(self, shape: Shape) -> float:
        """Operations of all steps."""
        return self.scale * sum(map(shape.step_flops, self.micros))


def plan_training(
    items: Sequence[Item],
    validation: Sequence[Item],
    settings: Train,
    *,
    seed: int,
    micro_tokens: int,
    shares: Shares,
) -> Plan:
    """Divide a training as `train` will, and count.

    Args:
        micro_tokens: executed at once, at most; validation takes twice as many.
        shares: which items can be computed in a forest.
    """
    steps = batches_per_epoch(items, settings.batch_tokens) * settings.epochs
    micros: list[Work] = []
    largest: tuple[Item, ...] = ()
    most = (0, 0)
    looked_at = 0
    for batch in _batches(items, settings, seed=seed, steps=steps):
        looked_at += 1
        for micro in micro_batches(batch, micro_tokens, shares=shares):
            work = work_of(micro, shares=shares)
            micros.append(work)
            if (work.executed, work.pairs) > most:
                largest, most = tuple(micro), (work.executed, work.pairs)
    held = micro_batches(validation, 2 * micro_tokens, shares=shares) if validation else []
    return Plan(
        steps=steps,
        micro_tokens=micro_tokens,
        tokens=round(settings.epochs * epoch_tokens(items)),
        trained_tokens=round(settings.epochs * sum(item.trained_tokens * item.repeats for item in items)),
        micros=tuple(micros),
        scale=steps / looked_at,
        largest=largest,
        validation=tuple(work_of(micro, shares=shares) for micro in held),
        validations=settings.epochs if validation else 0,
    )


def work_of(items: Sequence[Item], *, shares: Shares) -> Work:
    """The work of items computed together."""
    sequences = [sequence for item in items for sequence in item.sequences]
    flags = [row for item in items for row in item.flags]
    if not all(map(shares, items)):
        lengths = [len(sequence.ids) for sequence in sequences]
        return Work(sum(lengths), sum(map(sum, flags)), sum(n * (n + 1) // 2 for n in lengths))
    layout = lay_out([sequence.ids for sequence in sequences], flags)
    return Work(len(layout.tokens), len(layout.targets), int((layout.positions + 1).sum()))


def shape_of(model: Model) -> Shape:
    """The sizes of a model as it is about to be trained, whatever its matrices are held in."""
    base = causal_lm(model)
    config = base.config.get_text_config()
    head = base.get_output_embeddings()
    weight = getattr(head, "weight", None)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
    active = (getattr(config, "num_experts_per_tok", None) or 1) / experts
    frozen, trained = 0.0, 0.0
    for module in base.modules():
        if module is not head and not isinstance(module, torch.nn.Embedding):
            own = _matrices(module, active)
            frozen, trained = frozen + own[0], trained + own[1]
    heads = getattr(config, "num_attention_heads", None) or 0
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return Shape(
        frozen=round(frozen),
        trained=round(trained),
        head=0 if weight is None else weight.shape[0] * weight.shape[1],
        head_trained=weight is not None and weight.requires_grad,
        attention=config.num_hidden_layers * heads * width,
    )


def _matrices(module: torch.nn.Module, active: float) -> tuple[float, float]:
    """Weights of a module's own matrices, frozen and trained; of stacked experts the part that is active."""
    frozen, trained = 0.0, 0.0
    for weight in module.parameters(recurse=False):
        if weight.ndim < 2:
            continue
        size = weight.numel() * (active if weight.ndim == 3 else 1.0)
        if not weight.is_floating_point() and hasattr(module, "in_features"):
            size = float(module.in_features * module.out_features)  # type: ignore[operator]  # 4 bits are packed
        if weight.requires_grad:
            trained += size
        else:
            frozen += size
    return frozen, trained


def _batches(items: Sequence[Item], settings: Train, *, seed: int, steps: int) -> Iterator[list[Item]]:
    """Every step's items, or those of steps evenly drawn from the first epoch."""
    of_epoch = lru_cache(maxsize=1)(
        partial(epoch_batches, items, batch_tokens=settings.batch_tokens, seed=seed)
    )
    an_epoch = steps // settings.epochs
    if steps <= STEPS_LOOKED_AT:
        chosen = range(steps)
    else:
        chosen = range(0, an_epoch, max(1, an_epoch // STEPS_LOOKED_AT))
    for step in chosen:
        epoch, place = divmod(step, an_epoch)
        yield [items[i] for i in of_epoch(epoch=epoch)[place]]
