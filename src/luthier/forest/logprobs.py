"""`logprobs`: log-probabilities of sequences under a causal language model, shared prefixes once.

Every loss and every score of Luthier is a function of this one primitive.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from luthier.forest.attention import Unsupported, attending_by_forest
from luthier.forest.head import Head, head_of, target_logprobs
from luthier.forest.layout import Layout, lay_out, unshared_layout
from luthier.forest.packing import pack
from luthier.models.load import quiet_transformers

Model = PreTrainedModel | PeftModel


class FallbackWarning(UserWarning):
    """Sequences are computed one row each, because this model cannot share, or not these."""


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
    base = causal_lm(model)
    if share and len(sequences) > 1 and can_share(base):
        try:
            _refuse_unequal_rows(base, sequences)
            layout = lay_out(sequences, needed)
            values = _run(base, layout, forest=True)
            return [values[torch.from_numpy(pick).to(values.device)] for pick in layout.picks]
        except Unsupported as error:
            _warn_of_fallback(base, f"{error} cannot be shared", stacklevel=3)
    results = []
    for i, sequence in enumerate(sequences):
        layout = unshared_layout(sequence, None if needed is None else needed[i])
        values = _run(base, layout, forest=False)
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


def causal_lm(model: Model) -> PreTrainedModel:
    """The Transformers model inside an adapter wrapper, adapters still injected."""
    if isinstance(model, PeftModel):
        inner = model.get_base_model()
        assert isinstance(inner, PreTrainedModel)
        return inner
    return model


def device_of(base: PreTrainedModel) -> torch.device:
    """Where the input embeddings are."""
    device: torch.device = base.get_input_embeddings().weight.device  # type: ignore[assignment]
    return device


def _run(base: PreTrainedModel, layout: Layout, *, forest: bool) -> torch.Tensor:
    """Log-probabilities `[P]` of a layout's distinct predictions."""
    inputs = _inputs(base, layout, forest=forest)
    nodes = torch.from_numpy(layout.nodes).to(inputs["input_ids"].device)
    targets = torch.from_numpy(layout.targets).to(nodes.device)
    head = checked_head(base)
    with attending_by_forest(base) if forest else contextlib.nullcontext():
        if head is not None:
            hidden = base.get_decoder()(**inputs).last_hidden_state[0]
            return target_logprobs(head, hidden[nodes], targets)
        # a model that swallowed the argument unread would return logits of other nodes
        if "logits_to_keep" in inspect.signature(base.forward).parameters:
            logits = base(**inputs, logits_to_keep=nodes).logits[0].float()
        else:
            logits = base(**inputs).logits[0, nodes].float()
    chosen: torch.Tensor = logits.gather(1, targets[:, None])[:, 0]
    return chosen - torch.logsumexp(logits, dim=1)


def _inputs(base: PreTrainedModel, layout: Layout, *, forest: bool) -> dict[str, Any]:
    device = device_of(base)
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(layout.tokens)[None].to(device),
        "use_cache": False,
    }
    if forest:
        inputs["position_ids"] = torch.from_numpy(layout.positions)[None].to(device)
        inputs["forest"] = layout
    return inputs


_sharing: weakref.WeakKeyDictionary[PreTrainedModel, bool] = weakref.WeakKeyDictionary()
_heads: weakref.WeakKeyDictionary[PreTrainedModel, bool] = weakref.WeakKeyDictionary()


def can_share(base: PreTrainedModel) -> bool:
    """Whether the forest is exact on this model: tried once on a few tokens, not guessed from its name."""
    if base not in _sharing:
        reason = _try_sharing(base)
        _sharing[base] = reason is None
        if reason is not None:
            _warn_of_fallback(base, reason, stacklevel=4)
    return _sharing[base]


def _warn_of_fallback(base: PreTrainedModel, reason: str, *, stacklevel: int) -> None:
    text = f"{type(base).__name__} computes one row per sequence: {reason}"
    warnings.warn(text, FallbackWarning, stacklevel=stacklevel)


def _refuse_unequal_rows(base: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> None:
    """Refuse what the trial could not see: state that depends on the call, not on the architecture."""
    # recomputation in the backward pass would find the model's own attention in place again
    if (
        base.training
        and torch.is_grad_enabled()
        and any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    ):
        raise Unsupported("a forward pass under gradient checkpointing")
    config = base.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope] if "rope_type" in rope else [part for part in rope.values() if isinstance(part, dict)]
    limit = min(
        (
            kind.get("original_max_position_embeddings") or config.max_position_embeddings
            for kind in kinds
            if kind.get("rope_type") in ("dynamic", "longrope")
        ),
        default=None,
    )
    if limit is not None and max(map(len, sequences)) > limit:
        raise Unsupported("a position encoding that depends on the longest row")


def _try_sharing(base: PreTrainedModel) -> str | None:
    vocabulary: int = base.get_input_embeddings().weight.shape[0]  # type: ignore[index,assignment]
    trial = [[(7 * i + 3) % vocabulary for i in row] for row in ([0, 1, 2, 3, 4], [0, 1, 5, 6], [0, 1, 2, 7])]
    try:
        with torch.no_grad(), _evaluating(base), quiet_transformers():
            layout = lay_out(trial)
            layout.kept = {}
            shared = _last_hidden(base, layout, forest=True)
            for row, pick in zip(trial, layout.picks, strict=True):
                alone = _last_hidden(base, unshared_layout(row), forest=False)[:-1]
                together = shared[torch.from_numpy(layout.nodes[pick]).to(shared.device)]
                tolerance = 3e-5 if base.dtype == torch.float32 else 5e-2  # rounding; mixing is 1e-3 and more
                if not (together - alone).abs().max() <= tolerance * alone.abs().max():
                    return "its layers mix tokens other than through attention"
    except Unsupported as error:
        return f"{error} cannot be shared"
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        return f"its attention is not reached through the public interface ({type(error).__name__})"
    return None


def _last_hidden(base: PreTrainedModel, layout: Layout, *, forest: bool) -> torch.Tensor:
    """`[T, D]` float32. Not log-probabilities: an untrained head would hide a difference."""
    with attending_by_forest(base) if forest else contextlib.nullcontext():
        output = base(**_inputs(base, layout, forest=forest), output_hidden_states=True)
    hidden: torch.Tensor = output.hidden_states[-1][0]
    return hidden.float()


@contextlib.contextmanager
def _evaluating(base: PreTrainedModel) -> Iterator[None]:
    training = base.training
    base.eval()
    try:
        yield
    finally:
        base.train(training)


def checked_head(base: PreTrainedModel) -> Head | None:
    """The fast head where it gives the model's own logits (tried once), else None."""
    head = head_of(base)
    if head is None:
        return None
    if base not in _heads:
        with torch.no_grad(), _evaluating(base), quiet_transformers():
            _heads[base] = _gives_own_logits(base, head)
    return head if _heads[base] else None


def _gives_own_logits(base: PreTrainedModel, head: Head) -> bool:
    ids = torch.tensor([[0, 1]], device=device_of(base))
    try:
        hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
        own = base(input_ids=ids, use_cache=False).logits[0]
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # what `get_decoder` finds is not the model under the head
    tolerance = 1e-5 if own.dtype == torch.float32 else 1e-2
    error = (head.logits(hidden).float() - own.float()).abs().max()
    return bool(error <= tolerance * own.float().abs().max())
