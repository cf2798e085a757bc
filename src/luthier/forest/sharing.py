"""Whether sequences of a model can be shared, and what is said where they cannot."""

from __future__ import annotations

import contextlib
import re
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig, PreTrainedModel

from luthier.forest.attention import Unsupported, attending_by_forest
from luthier.forest.layout import Layout, lay_out
from luthier.forest.model import causal_lm, device_of, evaluating, inputs_of
from luthier.forest.root import Root, has_root, root_of
from luthier.models.adapter import Model
from luthier.models.int8 import without_int8
from luthier.models.load import quiet_transformers


class FallbackWarning(UserWarning):
    """Sequences are computed one row each, because this model cannot share, or not these."""


# settings of a configuration that name a number of tokens beyond which something changes
LENGTHS = re.compile("window|chunk|floor|local_att|block_size|topk$|distance|extent|original_max")

_sharing: weakref.WeakKeyDictionary[Model, bool] = weakref.WeakKeyDictionary()
_lengths: weakref.WeakKeyDictionary[Model, dict[int, dict[bool, str | None]]] = weakref.WeakKeyDictionary()


def can_share(model: Model) -> bool:
    """Whether the forest is exact on this model: tried once on a few tokens, not guessed from its name."""
    key = model if has_root(model) else causal_lm(model)
    if key not in _sharing:
        trial = [[0, 1, 2, 3, 4], [0, 1, 5, 6], [0, 1, 2, 7]]
        reason = _try_sharing(key, root_of(key), trial)
        _sharing[key] = reason is None
        if reason is not None:
            warn_of_fallback(key, reason, stacklevel=4)
    return _sharing[key]


def refuse_untried_lengths(model: Model, root: Root | None, *, tokens: int, reach: int) -> None:
    """Try again on longer rows where a forest first passes a length that the configuration names.

    Args:
        tokens: of the whole forest.
        reach: one more than the last position, virtual tokens counted.

    Raises:
        Unsupported: beyond it the forest is not exact.
    """
    key = model if has_root(model) else causal_lm(model)
    if key not in _lengths:
        _lengths[key] = {length: {} for length in _named_lengths(causal_lm(model).config)}
    for length, tried in _lengths[key].items():
        if tokens <= length:
            continue
        longest = max(2, reach - (root.length if root else 0))
        passed = reach > length
        if passed not in tried:
            # a second look with other tokens: a tie of experts that rounding decides is no difference
            trials = (_long_trial(length, min(longest, length + 3), seed) for seed in (0, 1))
            reasons = [_try_sharing(key, root, trial) for trial in trials]
            tried[passed] = None if None in reasons else reasons[0]
        if tried[passed] is not None:
            raise Unsupported(f"what changes beyond {length} tokens")


def _named_lengths(config: PreTrainedConfig) -> list[int]:
    """Sorted; those that every trial passes are left out."""
    found, waiting = set(), [config.get_text_config().to_dict()]
    for settings in waiting:  # grows while it is gone through
        for name, value in settings.items():
            if isinstance(value, dict):
                waiting.append(value)
            elif type(value) is int and value >= 3 and LENGTHS.search(str(name)):
                found.add(value)
    return sorted(found)


def _long_trial(length: int, longest: int, seed: int) -> list[list[int]]:
    """Rows of `longest` tokens: two that part half way, and others until all together are beyond `length`."""
    row = list(range(50 * seed, 50 * seed + longest))
    middle = longest // 2
    others = range(1, 3 + length // longest)
    return [row, row[:middle] + [token + 11 for token in row[middle:]]] + [
        [token + 17 * place for token in row] for place in others
    ]


def warn_of_fallback(model: Model, reason: str, *, stacklevel: int) -> None:
    """Say that sequences are computed one row each."""
    text = f"{type(causal_lm(model)).__name__} computes one row per sequence: {reason}"
    warnings.warn(text, FallbackWarning, stacklevel=stacklevel)


def refuse_unequal_rows(model: Model, sequences: Sequence[Sequence[int]], root: Root | None) -> None:
    """Refuse what the trial could not see: state that depends on the call, not on the architecture."""
    base = causal_lm(model)
    if base.training and (dropout := _dropout(base)):
        raise Unsupported(f"dropout {dropout}")
    if base.training and getattr(base.config.get_text_config(), "router_jitter_noise", None):
        raise Unsupported("noise in the router")
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
    if limit is not None and max(map(len, sequences)) + (root.length if root else 0) > limit:
        raise Unsupported("a position encoding that depends on the longest row")


def _dropout(base: PreTrainedModel) -> str | None:
    """Where numbers are dropped while training: sequences that share would get the same ones dropped."""
    named = _dropped(base.config.get_text_config().to_dict())
    if named:
        return "inside attention" if named == ["attention_dropout"] else f"({', '.join(named)})"
    for name, module in base.named_modules():
        if isinstance(module, _DropoutNd) and module.p > 0 and module.training:
            return f"in {name}"
    # some kinds of adapters (LoHa, BOFT) draw what they drop without a module for it
    for adapter in getattr(base, "peft_config", {}).values():
        if others := [key for key in _dropped(vars(adapter)) if key != "lora_dropout"]:
            return f"in the adapter ({', '.join(others)})"
    return None


def _dropped(settings: Mapping[str, Any]) -> list[str]:
    """Names of the probabilities; those of heads for other tasks are not the language model's."""
    ours = (key for key in settings if "drop" in key and not key.startswith(("summary", "classifier")))
    return sorted(key for key in ours if isinstance(settings[key], float) and settings[key] > 0)


def _try_sharing(model: Model, root: Root | None, rows: Sequence[Sequence[int]]) -> str | None:
    """Why the forest is not exact on this model and these rows of numbers; None where it is."""
    base = causal_lm(model)
    vocabulary: int = base.get_input_embeddings().weight.shape[0]  # type: ignore[index,assignment]
    trial = [[(7 * i + 3) % vocabulary for i in row] for row in rows]
    # rounding; mixing is 1e-3 and more
    tolerance = 5e-2 if torch.finfo(base.dtype).bits < 32 else 3e-5
    try:
        # what is found holds for later calls, so nothing of this call's own may count
        plain = torch.autocast(device_of(base).type, enabled=False)
        with torch.no_grad(), plain, evaluating(base), quiet_transformers(), without_int8():
            layout = lay_out(trial) if root is None else root.lay_out(trial)
            layout.kept = {}
            shared = _shared_states(model, layout, root)
            ends = (0, 1, len(trial) - 1)  # of many rows these are enough
            for row, pick in ((trial[i], layout.picks[i]) for i in ends):
                alone = _own_states(model, row)[:-1]
                together = shared[torch.from_numpy(layout.nodes[pick]).to(shared.device)]
                if not (together - alone).abs().max() <= tolerance * alone.abs().max():
                    return "its layers mix tokens other than through attention"
    except Unsupported as error:
        return f"{error} cannot be shared"
    except torch.OutOfMemoryError:
        raise  # says nothing about the model
    except Exception as error:
        return f"its attention is not reached through the public interface ({type(error).__name__})"
    return None


def _shared_states(model: Model, layout: Layout, root: Root | None) -> torch.Tensor:
    """`[T, D]` float32."""
    base = causal_lm(model)
    with attending_by_forest(base):
        return _before_head(base, base, inputs_of(model, layout, root, forest=True))


def _own_states(model: Model, row: list[int]) -> torch.Tensor:
    """`[len(row), D]` float32 of the model's own forward, virtual tokens left out."""
    base = causal_lm(model)
    ids = torch.tensor([row], device=device_of(base))
    return _before_head(model, base, {"input_ids": ids})[-len(row) :]


def _before_head(model: Model, base: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    """What the head is given, float32; the logits where nothing is.

    Not log-probabilities: an untrained head would hide a difference.
    """
    given: list[torch.Tensor] = []
    head = base.get_output_embeddings()
    with contextlib.ExitStack() as stack:
        if head is not None:
            hook = head.register_forward_pre_hook(lambda _, args: given.append(args[0]))
            stack.callback(hook.remove)
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return (given[-1] if given else logits)[0].float()
