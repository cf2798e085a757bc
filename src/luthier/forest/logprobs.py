"""`logprobs`: log-probabilities of sequences under a causal language model, shared prefixes once.

Every loss and every score of Luthier is a function of this one primitive.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from luthier.forest.attention import Unsupported, attending_by_forest
from luthier.forest.head import Head, head_of, target_logprobs
from luthier.forest.layout import Layout, lay_out, unshared_layout
from luthier.forest.model import causal_lm, device_of, evaluating, inputs_of, tokens_of
from luthier.forest.packing import pack
from luthier.forest.root import Root, root_of
from luthier.forest.sharing import (
    FallbackWarning,
    can_share,
    refuse_unequal_rows,
    refuse_untried_lengths,
    warn_of_fallback,
)
from luthier.models.adapter import Model
from luthier.models.load import quiet_transformers

__all__ = [
    "FallbackWarning",
    "Model",
    "can_share",
    "causal_lm",
    "checked_head",
    "device_of",
    "logprobs",
    "score",
]

LOUD = 100.0  # logits that every soft cap would change


def logprobs(
    model: Model,
    sequences: Sequence[Sequence[int]],
    share: bool = True,
    *,
    needed: Sequence[Sequence[bool]] | None = None,
) -> list[torch.Tensor]:
    """log p(next token | tokens before) of every sequence, float32, differentiable, exact.

    Args:
        model: a causal language model, plain or with PEFT adapters, on one device.
        sequences: lists of token ids; each at least one token long.
        share: compute shared prefixes once. The result is the same either way.
        needed: per sequence `len - 1` flags; only the flagged predictions are computed by the head.

    Returns:
        One 1-D tensor per sequence: `len - 1` values, or the flagged ones in order.

    Raises:
        ValueError: an empty sequence, or flags of the wrong length.
    """
    if not sequences:
        return []
    root = root_of(model)
    if share and (len(sequences) > 1 or root is not None) and can_share(model):
        try:
            refuse_unequal_rows(model, sequences, root)
            layout = lay_out(sequences, needed) if root is None else root.lay_out(sequences, needed)
            refuse_untried_lengths(model, root, tokens=len(layout.tokens), reach=layout.reach)
            values = _run(model, layout, root, forest=True)
            return [values[torch.from_numpy(pick).to(values.device)] for pick in layout.picks]
        except Unsupported as error:
            warn_of_fallback(model, f"{error} cannot be shared", stacklevel=3)
    results = []
    for i, sequence in enumerate(sequences):
        layout = unshared_layout(sequence, None if needed is None else needed[i])
        values = _run(model, layout, root, forest=False)
        results.append(values[torch.from_numpy(layout.picks[0]).to(values.device)])
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


def _run(model: Model, layout: Layout, root: Root | None, *, forest: bool) -> torch.Tensor:
    """Log-probabilities `[P]` of a layout's distinct predictions."""
    base = causal_lm(model)
    nodes = torch.from_numpy(layout.nodes).to(device_of(base))
    targets = torch.from_numpy(layout.targets).to(nodes.device)
    head = checked_head(base)
    if root is not None and not forest:
        logits = _logits(model, {"input_ids": tokens_of(base, layout)}, nodes, root)
    else:
        inputs = inputs_of(model, layout, root, forest=forest)
        with attending_by_forest(base) if forest else contextlib.nullcontext():
            if head is not None:
                hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state[0]
                return target_logprobs(head, hidden[nodes], targets)
            logits = _logits(base, inputs, nodes)
    chosen: torch.Tensor = logits.gather(1, targets[:, None])[:, 0]
    return chosen - torch.logsumexp(logits, dim=1)


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


_heads: weakref.WeakKeyDictionary[PreTrainedModel, bool] = weakref.WeakKeyDictionary()


def checked_head(base: PreTrainedModel) -> Head | None:
    """The fast head where it gives the model's own logits (tried once), else None."""
    head = head_of(base)
    if head is None:
        return None
    if base not in _heads:
        with torch.no_grad(), evaluating(base), quiet_transformers():
            _heads[base] = _gives_own_logits(base, head)
    return head if _heads[base] else None


def _gives_own_logits(base: PreTrainedModel, head: Head) -> bool:
    ids = torch.tensor([[0, 1]], device=device_of(base))
    tolerance = 1e-2 if torch.finfo(base.dtype).bits < 32 else 1e-5
    try:
        hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
        loudest = float(torch.nn.functional.linear(hidden, head.weight).abs().max())
        # a soft cap is next to nothing on the logits of an untrained model, and all that counts later
        for factor in (1.0, LOUD / max(loudest, torch.finfo(torch.float32).tiny)):
            own = _louder_logits(base, ids, factor).float()
            ours = head.logits(hidden * factor).float()
            if own.shape != ours.shape or not (own - ours).abs().max() <= tolerance * own.abs().max():
                return False
    except torch.OutOfMemoryError:
        raise  # says nothing about the model
    except Exception:
        return False  # what `get_decoder` finds is not the model under the head
    return True


def _louder_logits(base: PreTrainedModel, ids: torch.Tensor, factor: float) -> torch.Tensor:
    """The model's own logits `[T, V]` where its head is given `factor` times what it is given."""
    layer = base.get_output_embeddings()
    hook = layer.register_forward_pre_hook(lambda _, args: (args[0] * factor, *args[1:]))
    try:
        logits: torch.Tensor = base(input_ids=ids, use_cache=False).logits[0]
    finally:
        hook.remove()
    return logits
