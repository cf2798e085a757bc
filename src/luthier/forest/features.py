"""Hidden states at nodes of the forest: what heads are given that are not the language model's.

Legend: S sequences, T flagged predictions of a sequence, D width.

A hidden state is what the language-model head is given, before any scaling of its logits: the output of the
decoder's last norm. Shared prefixes are computed once, as for `logprobs`; a model that cannot share computes
one row per sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from luthier.errors import ModelError
from luthier.forest.logprobs import Model, _Forward, _forwards
from luthier.forest.model import causal_lm
from luthier.forest.soft_targets import SoftTargets


def logprobs_and_states(
    model: Model,
    sequences: Sequence[Sequence[int]],
    share: bool = True,
    *,
    needed: Sequence[Sequence[bool]] | None = None,
    soft: Sequence[SoftTargets | None] | None = None,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`logprobs`, and the hidden state before each of these tokens.

    Args:
        model, sequences, share, needed, soft: as for `logprobs`.

    Returns:
        For each sequence `[T]` float32 log-probabilities and `[T, D]` states in the model's dtype, both
        differentiable: a state is the one that its token is predicted from.

    Raises:
        ModelError: the hidden states of this architecture cannot be read.
        ValueError: as `logprobs`.
    """
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for part, hidden in _forwards_with_states(model, sequences, share, needed):
        picks = part.layout.picks
        teachers = [None] * len(picks) if soft is None else soft[len(results) :][: len(picks)]
        for values, pick in zip(part.values(teachers), picks, strict=True):
            nodes = torch.from_numpy(part.layout.nodes[pick]).to(hidden.device)
            results.append((values, hidden[nodes]))
    return results


def states_at(
    model: Model,
    sequences: Sequence[Sequence[int]],
    share: bool = True,
    *,
    places: Sequence[int] | None = None,
) -> list[torch.Tensor]:
    """The hidden state at one token of every sequence; the language-model head is not run.

    Args:
        model, sequences, share: as for `logprobs`.
        places: of each sequence the index of the token; the last one where this is None.

    Returns:
        `[D]` for each sequence, in the model's dtype, differentiable.

    Raises:
        ModelError: the hidden states of this architecture cannot be read.
        ValueError: an empty sequence, or a place outside of it.
    """
    lengths = [len(sequence) for sequence in sequences]
    asked = [length - 1 for length in lengths] if places is None else list(places)
    for place, length in zip(asked, lengths, strict=True):
        if length and not 0 <= place < length:
            raise ValueError(f"a sequence of {length} tokens has no token {place}")
    nothing = [[False] * (length - 1) for length in lengths]
    results: list[torch.Tensor] = []
    for part, hidden in _forwards_with_states(model, sequences, share, nothing):
        first = len(results)
        nodes = np.array(
            [
                path[place - length]  # from the end: virtual tokens may stand before
                for path, place, length in zip(
                    part.layout.paths, asked[first:], lengths[first:], strict=False
                )
            ]
        )
        results += hidden[torch.from_numpy(nodes).to(hidden.device)].unbind()
    return results


def _forwards_with_states(
    model: Model,
    sequences: Sequence[Sequence[int]],
    share: bool,
    needed: Sequence[Sequence[bool]] | None,
) -> Iterator[tuple[_Forward, torch.Tensor]]:
    """Each forward with the states `[T, D]` of all its nodes."""
    base = causal_lm(model)
    decoder = base.get_decoder()
    if decoder is base:
        raise _unreadable(model)
    latest: list[torch.Tensor] = []  # trials of sharing come before the forward that counts

    def keep(module: object, arguments: object, output: tuple[torch.Tensor, ...]) -> None:
        latest[:] = [output[0]]

    hook = decoder.register_forward_hook(keep)
    try:
        for part in _forwards(model, sequences, share, needed):
            if not latest:
                raise _unreadable(model)
            # PEFT gives outputs for the virtual tokens of a prompt too, where it computes a row itself
            yield part, latest.pop()[0][-len(part.layout.tokens) :]
    finally:
        hook.remove()


def _unreadable(model: Model) -> ModelError:
    return ModelError(
        f"the hidden states of {type(causal_lm(model)).__name__} cannot be read: it has no decoder",
        fix="use another model, or a method that needs no head",
    )
