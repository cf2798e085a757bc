"""Tiny random models of many architectures, made on the spot; large weights, so that ties are rare."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 97
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWED = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
SHARING: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"head_dim": 8, "sliding_window": 4},
    "gemma2": {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        **WINDOWED,
    },
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, **WINDOWED},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": {},
    "phi3": {},
    "olmo2": {},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "attention_multiplier": 0.2},
    "cohere2": {"logit_scale": 0.25, **WINDOWED},
    "mixtral": {"num_local_experts": 4, "sliding_window": 4},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, **WINDOWED},
}
FALLING_BACK: dict[str, tuple[dict[str, Any], str]] = {
    "mamba": ({"state_size": 8}, "mix tokens"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "mix tokens"),
    "llama4_text": (
        {
            "head_dim": 8,
            "attention_chunk_size": 4,
            "num_local_experts": 2,
            "intermediate_size_mlp": 48,
            "layer_types": ["chunked_attention", "full_attention"],
        },
        "attention in chunks",
    ),
    "phimoe": ({"num_local_experts": 2, "sliding_window": 4}, "keeps to itself"),
    "gptj": ({"rotary_dim": 4, "n_positions": 128}, "public interface"),
    "stablelm": ({}, "public interface"),
    "recurrent_gemma": ({"lru_width": 32, "attention_window_size": 4}, "mix tokens"),
    "diffllama": ({}, "twice in a layer"),
}


def tiny(kind: str, *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random model in evaluation mode, float32."""
    own = SHARING.get(kind) or FALLING_BACK.get(kind, ({}, ""))[0]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(COMMON | own | overrides)))
    return model.float().eval()


def with_lora(model: PreTrainedModel, *, rank: int = 4, seed: int = 0, **options: Any) -> PeftModel:
    """LoRA on every linear layer, as after some training: B is not zero."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        adapted = get_peft_model(model, LoraConfig(r=rank, **({"target_modules": "all-linear"} | options)))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return adapted.eval()


def plain_logprobs(model: torch.nn.Module, sequence: Sequence[int]) -> torch.Tensor:
    """What plain Transformers gives for one sequence in a row of its own: `[len - 1]`."""
    logits = model(input_ids=torch.tensor([list(sequence)]), use_cache=False).logits[0, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    targets = torch.tensor(list(sequence[1:]), dtype=torch.long)
    return torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest value; 0 where there is nothing."""
    if got.numel() == 0 and expected.numel() == 0:
        return 0.0
    assert got.shape == expected.shape
    got, expected = got.detach(), expected.detach()
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
