"""`logprobs`: log-probabilities of sequences under a causal language model, shared prefixes once.

Every loss and every score of Luthier is a function of this one primitive.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from luthier.errors import ModelError
from luthier.forest.attention import Unsupported, attending_by_forest
from luthier.forest.checked_head import checked_head
from luthier.forest.head import Head, target_logprobs
from luthier.forest.layout import IntArray, Layout, lay_out, unshared_layout
from luthier.forest.model import causal_lm, device_of, inputs_of, tokens_of
from luthier.forest.packing import pack
from luthier.forest.root import Root, root_of
from luthier.forest.sharing import (
    FallbackWarning,
    can_share,
    refuse_unequal_rows,
    refuse_untried_lengths,
    warn_of_fallback,
)
from luthier.forest.soft_targets import SoftTargets, dense_expected_logprobs, expected_logprobs
from luthier.models.adapter import Model

__all__ = [
    "FallbackWarning",
    "Model",
    "can_share",
    "causal_lm",
    "checked_head",
    "device_of",
    "logprobs",
    "score",
    "soft_targets",
]


def logprobs(
    model: Model,
    sequences: Sequence[Sequence[int]],
    share: bool = True,
    *,
    needed: Sequence[Sequence[bool]] | None = None,
    soft: Sequence[SoftTargets | None] | None = None,
) -> list[torch.Tensor]:
    """log p(next token | tokens before) of every sequence, float32, differentiable, exact.

    Args:
        model: a causal language model, plain or with PEFT adapters, on one device.
        sequences: lists of token ids; each at least one token long.
        share: compute shared prefixes once. The result is the same either way.
        needed: per sequence `len - 1` flags; only the flagged predictions are computed by the head.
        soft: per sequence, a teacher's distributions at its flagged predictions, or None. A sequence with a
            teacher gives the log-probability that is expected under it, not that of its own next token.

    Returns:
        One 1-D tensor per sequence: `len - 1` values, or the flagged ones in order.

    Raises:
        ValueError: an empty sequence, or flags of the wrong length.
    """
    results: list[torch.Tensor] = []
    for part in _forwards(model, sequences, share, needed):
        teachers = [None] * len(part.layout.picks) if soft is None else soft[len(results) :]
        results += part.values(teachers[: len(part.layout.picks)])
    return results


def score(
    model: Model,
    sequences: Sequence[Sequence[int]],
    *,
    needed: Sequence[Sequence[bool]] | None = None,
    max_tokens: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> list[torch.Tensor]:
    """`logprobs` without gradients, in forests of at most `max_tokens` executed tokens.

    Args:
        advance: called with the number of sequences finished, after each forest.

    Returns:
        One float32 CPU tensor per sequence, in the order given.
    """
    results: list[torch.Tensor | None] = [None] * len(sequences)
    with torch.inference_mode():
        for group in pack(sequences, max_tokens):
            flags = None if needed is None else [needed[i] for i in group]
            for i, values in zip(
                group, logprobs(model, [sequences[i] for i in group], needed=flags), strict=True
            ):
                results[i] = values.cpu()
            if advance is not None:
                advance(len(group))
    return [values for values in results if values is not None]


def soft_targets(
    model: Model,
    sequences: Sequence[Sequence[int]],
    needed: Sequence[Sequence[bool]],
    *,
    max_tokens: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> list[SoftTargets]:
    """A model's distributions at the flagged predictions: it as it is now is the teacher.

    Args:
        needed: per sequence `len - 1` flags.
        max_tokens: executed at a time, at most.
        advance: called with the number of sequences finished, after each forest.

    Returns:
        One per sequence, in the order given; the head is copied where it is to be trained.

    Raises:
        ModelError: the model's head is not a linear map with a known scaling.
    """
    head = checked_head(causal_lm(model))
    if head is None:
        raise _no_distributions(model)
    if any(p is not None and p.requires_grad for p in (head.weight, head.bias)):
        bias = None if head.bias is None else head.bias.detach().clone()
        head = replace(head, weight=head.weight.detach().clone(), bias=bias)
    kept: dict[int, SoftTargets] = {}
    with torch.no_grad():
        for group in pack(sequences, max_tokens):
            asked, flags = [sequences[i] for i in group], [needed[i] for i in group]
            places = iter(group)
            for part in _forwards(model, asked, True, flags):
                if part.head is None:
                    raise _no_distributions(model)
                for pick in part.layout.picks:
                    kept[next(places)] = SoftTargets(part.rows_at(pick).detach(), head)
            if advance is not None:
                advance(len(group))
    return [kept[i] for i in range(len(sequences))]


@dataclass(frozen=True, eq=False)
class _Forward:
    """What the predictions of a layout are made from.

    Attributes:
        rows: `[P, D]`, what the head is given, or the logits `[P, V]` where `head` is None.
    """

    layout: Layout
    rows: torch.Tensor
    head: Head | None

    def values(self, soft: Sequence[SoftTargets | None]) -> list[torch.Tensor]:
        """Log-probabilities of every sequence of the layout, in order."""
        picks = self.layout.picks
        hard = [pick for pick, teacher in zip(picks, soft, strict=True) if teacher is None]
        every = np.arange(len(self.layout.nodes))
        if len(hard) == len(picks):
            whole = self._of_tokens(every)
        else:  # the head is not run where only a teacher asks
            asked = np.unique(np.concatenate([every[:0], *hard]))
            whole = self.rows.new_zeros(len(every), dtype=torch.float32)
            whole = whole.index_copy(0, self._places(asked), self._of_tokens(asked))
        return [
            whole[self._places(pick)] if teacher is None else self._of_teacher(pick, teacher)
            for pick, teacher in zip(picks, soft, strict=True)
        ]

    def rows_at(self, pick: IntArray) -> torch.Tensor:
        """Those of some of the predictions."""
        return self.rows[self._places(pick)]

    def _places(self, pick: IntArray) -> torch.Tensor:
        return torch.from_numpy(pick).to(self.rows.device)

    def _of_tokens(self, pick: IntArray) -> torch.Tensor:
        rows = self.rows if len(pick) == len(self.rows) else self.rows_at(pick)
        targets = torch.from_numpy(self.layout.targets[pick]).to(rows.device)
        if self.head is not None:
            return target_logprobs(self.head, rows, targets)
        chosen: torch.Tensor = rows.gather(1, targets[:, None])[:, 0]
        return chosen - torch.logsumexp(rows, dim=1)

    def _of_teacher(self, pick: IntArray, teacher: SoftTargets) -> torch.Tensor:
        rows = self.rows_at(pick)
        if self.head is not None:
            return expected_logprobs(self.head, rows, teacher)
        return dense_expected_logprobs(rows, teacher)


def _forwards(
    model: Model,
    sequences: Sequence[Sequence[int]],
    share: bool,
    needed: Sequence[Sequence[bool]] | None,
) -> Iterator[_Forward]:
    """One forest where the model and these sequences can share, else one row for each."""
    if not sequences:
        return
    root = root_of(model)
    if share and (len(sequences) > 1 or root is not None) and can_share(model):
        try:
            refuse_unequal_rows(model, sequences, root)
            layout = lay_out(sequences, needed) if root is None else root.lay_out(sequences, needed)
            refuse_untried_lengths(model, root, tokens=len(layout.tokens), reach=layout.reach)
            whole = _forward(model, layout, root, forest=True)
        except Unsupported as error:
            warn_of_fallback(model, f"{error} cannot be shared", stacklevel=4)
        else:
            yield whole
            return
    for i, sequence in enumerate(sequences):
        layout = unshared_layout(sequence, None if needed is None else needed[i])
        yield _forward(model, layout, root, forest=False)


def _forward(model: Model, layout: Layout, root: Root | None, *, forest: bool) -> _Forward:
    base = causal_lm(model)
    nodes = torch.from_numpy(layout.nodes).to(device_of(base))
    head = checked_head(base)
    if root is not None and not forest:
        return _Forward(layout, _logits(model, {"input_ids": tokens_of(base, layout)}, nodes, root), None)
    inputs = inputs_of(model, layout, root, forest=forest)
    with attending_by_forest(base) if forest else contextlib.nullcontext():
        if head is None:
            return _Forward(layout, _logits(base, inputs, nodes), None)
        hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state[0]
    return _Forward(layout, hidden[nodes], head)


def _no_distributions(model: Model) -> ModelError:
    return ModelError(
        f"the distributions of {type(causal_lm(model)).__name__} cannot be kept: its head is not plain",
        fix="train on its answers alone: train: {replay_loss: nll}",
    )


def _logits(
    model: Model, inputs: dict[str, Any], nodes: torch.Tensor, root: Root | None = None
) -> torch.Tensor:
    """Float32 logits `[P, V]` of the model's own forward."""
    if root is not None and root.embeddings is not None:
        nodes = nodes + root.length  # PEFT gives outputs for a prompt's own tokens too
    # a model that swallowed the argument unread would return logits of other nodes
    if "logits_to_keep" in inspect.signature(causal_lm(model).forward).parameters:
        logits = model(**inputs, use_cache=False, logits_to_keep=nodes).logits[0]
    else:
        logits = model(**inputs, use_cache=False).logits[0, nodes]
    result: torch.Tensor = logits.float()
    return result
