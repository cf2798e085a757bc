"""What a method's loss is given of its items: log-probabilities, or what a head of the model says.

Legend: S sequences, K outputs of a head, T trained tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from luthier.forest import logprobs, pack
from luthier.forest.features import logprobs_and_states, states_at
from luthier.forest.logprobs import Model
from luthier.forest.soft_targets import SoftTargets
from luthier.methods.method import Item, Method
from luthier.models.encoder import encoder_outputs, is_encoder
from luthier.models.heads import HeadKind, pooled_token, read_head


def outputs_of(model: Model, method: Method, items: Sequence[Item]) -> list[list[torch.Tensor]]:
    """For each item one tensor for each of its sequences, differentiable; `Method.head` says what is in it.

    Raises:
        ModelError: the model has not the head that the method reads.
    """
    values = iter(_READERS[method.head](model, items))
    return [[next(values) for _ in item.sequences] for item in items]


def score_sequences(
    model: Model,
    sequences: Sequence[Sequence[int]],
    *,
    max_tokens: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """What a reward model or classifier says of sequences: `[S, K]` float32 on the CPU, without gradients.

    Args:
        sequences: token ids: of prompt, answer and terminator for a reward, of a prompt for a classifier.
        max_tokens: executed at a time, at most.
        advance: called with the number of sequences finished, after each forest.

    Raises:
        ModelError: the model has no such head.
    """
    results: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for group in pack(sequences, max_tokens):
            found = _read_at_ends(model, [sequences[i] for i in group])
            results |= dict(zip(group, (values.float().cpu() for values in found), strict=True))
            if advance is not None:
                advance(len(group))
    return torch.stack([results[i] for i in range(len(sequences))])


def _ids(items: Sequence[Item]) -> list[list[int]]:
    return [list(sequence.ids) for item in items for sequence in item.sequences]


def _teachers(items: Sequence[Item]) -> list[SoftTargets | None] | None:
    if not any(item.soft for item in items):
        return None
    return [teacher for item in items for teacher in item.soft or [None] * len(item.sequences)]


def _logprobs(model: Model, items: Sequence[Item]) -> list[torch.Tensor]:
    needed = [row for item in items for row in item.flags]
    return logprobs(model, _ids(items), needed=needed, soft=_teachers(items))


def _at_ends(model: Model, items: Sequence[Item]) -> list[torch.Tensor]:
    return _read_at_ends(model, _ids(items))


def _at_tokens(model: Model, items: Sequence[Item]) -> list[torch.Tensor]:
    needed = [row for item in items for row in item.flags]
    found = logprobs_and_states(model, _ids(items), needed=needed, soft=_teachers(items))
    states = torch.cat([states for _, states in found])
    values = read_head(model, "tokens", states)[:, 0].split([len(logps) for logps, _ in found])
    return [
        torch.stack([logps, own.to(logps.dtype)], dim=1)
        for (logps, _), own in zip(found, values, strict=True)
    ]


def _read_at_ends(model: Model, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The `sequence` head's outputs, `[K]` for each sequence."""
    if is_encoder(model):
        return list(encoder_outputs(model, sequences).unbind())
    places = [pooled_token(model, ids) for ids in sequences]
    states = states_at(model, sequences, places=places)
    return list(read_head(model, "sequence", torch.stack(states)).unbind())


_READERS: dict[HeadKind | None, Callable[[Model, Sequence[Item]], list[torch.Tensor]]] = {
    None: _logprobs,
    "sequence": _at_ends,
    "tokens": _at_tokens,
}
