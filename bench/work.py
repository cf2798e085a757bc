"""How much work a training step is: tokens, and floating-point operations by a published formula."""

from __future__ import annotations

from dataclasses import dataclass


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
    """One optimizer step of Luthier.

    Attributes:
        tokens: of the original sequences, before sharing and without padding ("useful").
        trained: tokens with a loss weight.
        executed: tokens that go through the blocks.
        predictions: distinct positions and targets that go through the head.
        pairs: query-key pairs that causal attention along the forest's paths has to see.
        shared: tokens at the start that all sequences of the batch have in common.
        longest: tokens of the longest sequence.
    """

    tokens: int
    trained: int
    executed: int
    predictions: int
    pairs: int
    shared: int
    longest: int


def flops(model: Model, work: Work) -> float:
    """Floating-point operations of a LoRA step with nothing computed twice.

    4 N T + 6 N_lora T + 4 V d T_t + 12 a P L: forward and backward through frozen weights (no weight
    gradients), through the adapter (with them), through the frozen head at the predicted positions,
    and attention of width a over the P visible pairs in L layers (4 forward, 8 backward).
    """
    blocks = (4 * model.linear + 6 * model.adapter) * work.executed
    head = 4 * model.vocabulary * model.width * work.predictions
    attention = 12 * model.attention_width * work.pairs * model.layers
    return float(blocks + head + attention)
