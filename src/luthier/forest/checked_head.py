"""The fast head, where it is tried to give the model's own logits."""

from __future__ import annotations

import weakref

import torch
from transformers import PreTrainedModel

from luthier.forest.head import Head, head_of
from luthier.forest.model import device_of, evaluating
from luthier.models.load import quiet_transformers

LOUD = 100.0  # logits that every soft cap would change

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
