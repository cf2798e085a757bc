"""The sizes of a model that the count of operations needs."""

from __future__ import annotations

from peft import PeftModel
from transformers import PreTrainedModel

from bench.work import Model
from luthier.forest.logprobs import causal_lm


def model_sizes(model: PreTrainedModel | PeftModel) -> Model:
    """Linear layers of the blocks (two-dimensional weights but embeddings and head), adapter, shape."""
    base = causal_lm(model)
    config = base.config.get_text_config()
    apart = {id(base.get_input_embeddings().weight), id(base.get_output_embeddings().weight)}
    weights = {
        id(p): p
        for name, p in base.named_parameters()
        if p.dim() == 2 and id(p) not in apart and "lora_" not in name
    }
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Model(
        linear=sum(p.numel() for p in weights.values()),
        adapter=sum(p.numel() for p in model.parameters() if p.requires_grad),
        width=config.hidden_size,
        vocabulary=base.get_output_embeddings().weight.shape[0],
        layers=config.num_hidden_layers,
        attention_width=heads * head_width,
    )
