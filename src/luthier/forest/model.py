"""A model as the forest sees it: the Transformers model inside, and the arguments of its forward."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel, PeftType
from transformers import PreTrainedModel

from luthier.errors import ModelError
from luthier.forest.layout import Layout
from luthier.forest.root import Root
from luthier.models.adapter import Model


def causal_lm(model: Model) -> PreTrainedModel:
    """The Transformers model inside an adapter wrapper, adapters still injected.

    Raises:
        ModelError: a kind of model or adapter whose results are not those of this inner model.
    """
    if isinstance(model, PeftModel):
        _refuse_outer_adapter(model)
        inner = model.get_base_model()
        assert isinstance(inner, PreTrainedModel)
    else:
        inner = model
    if getattr(inner.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(inner).__name__} is an encoder and a decoder, not a causal language model",
            fix="load a causal language model (AutoModelForCausalLM)",
        )
    return inner


def _refuse_outer_adapter(model: PeftModel) -> None:
    """Refuse what PEFT computes around the model, not in its layers: it depends on the whole sequence."""
    config = model.active_peft_config
    if config.peft_type == PeftType.XLORA or getattr(config, "alora_invocation_tokens", None):
        kind = "X-LoRA" if config.peft_type == PeftType.XLORA else "activated LoRA"
        raise ModelError(f"adapters of the kind {kind} are not computed here", fix="use LoRA")


def device_of(base: PreTrainedModel) -> torch.device:
    """Where the input embeddings are."""
    device: torch.device = base.get_input_embeddings().weight.device  # type: ignore[assignment]
    return device


def tokens_of(base: PreTrainedModel, layout: Layout) -> torch.Tensor:
    """`[1, T]` on the model's device."""
    return torch.from_numpy(layout.tokens)[None].to(device_of(base))


def inputs_of(model: Model, layout: Layout, root: Root | None, *, forest: bool) -> dict[str, Any]:
    """Arguments of the base model's forward, but for `use_cache`."""
    base = causal_lm(model)
    tokens = tokens_of(base, layout)
    inputs: dict[str, Any] = {}
    if root is not None and root.embeddings is not None:
        assert isinstance(model, PeftModel)
        inputs["inputs_embeds"] = root.embed(model, tokens[0])
    else:
        inputs["input_ids"] = tokens
    if forest:
        inputs["position_ids"] = torch.from_numpy(layout.positions)[None].to(tokens.device)
        inputs["forest"] = layout
    return inputs


@contextlib.contextmanager
def evaluating(base: PreTrainedModel) -> Iterator[None]:
    """No dropout for a while."""
    training = base.training
    base.eval()
    try:
        yield
    finally:
        base.train(training)
