"""How much work a step is: tokens counted from the sequences, and operations by a published formula."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bench.plan import Row


@dataclass(frozen=True)
class Model:
    """Sizes: parameters of the blocks' linear layers and of the adapter, and the shape of the rest."""

    linear: int
    adapter: int
    width: int
    vocabulary: int
    layers: int
    attention_width: int


@dataclass(frozen=True)
class Work:
    """One step, with every shared prefix computed once.

    Attributes:
        tokens: of the original sequences, before sharing and without padding ("useful").
        trained: tokens with a loss weight, before sharing.
        distinct: distinct prefixes: what has to go through the blocks.
        predictions: distinct pairs of prefix and weighted next token: what the head has to compute.
        pairs: query-key pairs that causal attention along these prefixes has to see.
        shared: tokens at the start that all sequences have in common.
        longest: tokens of the longest sequence.
    """

    tokens: int
    trained: int
    distinct: int
    predictions: int
    pairs: int
    shared: int
    longest: int


def count_work(rows: Sequence[Row]) -> Work:
    """Count from the sequences alone, without asking either side.

    In sorted order a sequence adds the prefixes that it does not share with the one before it, and all
    sequences share what the first and the last share.
    """
    ordered = sorted(rows, key=lambda row: row.ids)
    distinct = pairs = 0
    predictions = set()
    before: tuple[int, ...] = ()
    for row in ordered:
        shared = common_prefix(before, row.ids)
        distinct += len(row.ids) - shared
        pairs += (len(row.ids) * (len(row.ids) + 1) - shared * (shared + 1)) // 2
        predictions |= {row.ids[: t + 1] for t, weight in enumerate(row.weights) if weight}
        before = row.ids
    return Work(
        tokens=sum(len(row.ids) for row in rows),
        trained=int(sum(sum(row.weights) for row in rows)),
        distinct=distinct,
        predictions=len(predictions),
        pairs=pairs,
        shared=common_prefix(ordered[0].ids, ordered[-1].ids),
        longest=max(len(row.ids) for row in rows),
    )


def training_flops(model: Model, work: Work) -> float:
    """Floating-point operations of a LoRA step with nothing computed twice.

    4 N T + 6 N_lora T + 4 V d T_t + 12 a P L: forward and backward through frozen weights (no weight
    gradients), through the adapter (with them), through the frozen head at the predicted positions,
    and attention of width a over the P visible pairs in L layers (4 forward, 8 backward).
    """
    blocks = (4 * model.linear + 6 * model.adapter) * work.distinct
    head = 4 * model.vocabulary * model.width * work.predictions
    attention = 12 * model.attention_width * work.pairs * model.layers
    return float(blocks + head + attention)


def scoring_flops(model: Model, work: Work) -> float:
    """Floating-point operations of scoring: a forward pass, 2 N T + 2 V d T_t + 4 a P L."""
    blocks = 2 * model.linear * work.distinct
    head = 2 * model.vocabulary * model.width * work.predictions
    attention = 4 * model.attention_width * work.pairs * model.layers
    return float(blocks + head + attention)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that two sequences share at their start."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return sum(1 for _ in same)
