"""A tiny random model of every causal language model that this version of Transformers has.

Sizes are put in wherever a configuration has a field of that name; `OWN` holds what that does not make a
model of. Whatever lies beyond a length in a real model (windows, chunks, the number of selected keys,
trained positions) begins here after a few tokens, so that 20 tokens reach it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

ARCHITECTURES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
LARGEST = 3_000_000  # parameters: a size that is missing below shows as a giant

_BY_SIZE: dict[Any, str] = {
    32: "hidden_size d_model n_embd embedding_size embedding_dim emb_dim embed_dim word_embed_proj_dim "
    "attention_hidden_size lru_width",
    48: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff dim_ff d_inner "
    "intermediate_size_mlp dense_intermediate_size",
    16: "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size image_size "
    "shared_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size rel_extent",
    1: "encoder_layers num_encoder_layers n_group topk_group num_expert_group topk_groups mamba_n_groups",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_blocks num_decoder_layers "
    "num_key_value_heads num_kv_heads swa_num_key_value_heads o_groups index_n_heads index_topk_blocks "
    "linear_num_key_heads linear_num_value_heads linear_num_heads n_mamba_heads n_groups "
    "num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k top_k_experts",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
    "attention_heads num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads "
    "sliding_window sliding_window_size window_size attention_window_size attention_chunk_size "
    "keep_window_size index_topk index_block_size rotary_dim qk_rope_head_dim d_rel num_experts "
    "num_local_experts n_routed_experts moe_num_experts mamba_dt_rank time_step_rank laurel_rank "
    "prompt_length patch_size floor_scale",
    6: "local_attention",
    8: "head_dim attention_head_dim d_head dim_head kv_channels swa_head_dim qk_nope_head_dim q_lora_rank "
    "kv_lora_rank o_lora_rank index_head_dim query_pre_attn_scalar linear_key_head_dim "
    "linear_value_head_dim linear_head_dim mamba_d_state mamba_n_heads mamba_d_head mamba_chunk_size "
    "state_size ssm_state_size mamba_num_heads mamba_head_dim mamba_headdim chunk_size "
    "hidden_size_per_layer_input",
    12: "v_head_dim qk_head_dim",
    64: "mamba_d_ssm",
    97: "vocab_size vocab_size_per_layer_input",
    128: "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions",
    0: "num_kv_shared_layers pad_token_id",
}
SMALL: dict[str, Any] = {name: size for size, names in _BY_SIZE.items() for name in names.split()}
SMALL |= {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3, "is_decoder": True}
DROPOUTS = (
    "attention_dropout dropout resid_pdrop embd_pdrop attn_pdrop activation_dropout hidden_dropout layerdrop "
    "hidden_dropout_prob attention_probs_dropout_prob decoder_layerdrop"
)
SMALL |= dict.fromkeys(DROPOUTS.split(), 0.0)
# set where a configuration has the field, though by default it is empty
EVEN_IF_NONE = {
    "head_dim", "pad_token_id", "bos_token_id", "eos_token_id", "num_experts_per_tok", "n_routed_experts",
    "moe_intermediate_size", "num_experts", "n_group", "topk_group", "num_key_value_heads",
}  # fmt: skip
WINDOWED = {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]}
QWEN_WINDOWED = WINDOWED | {"use_sliding_window": True, "max_window_layers": 1}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 100.0}
ZAMBA = {
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "hybrid"] * 2,
}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 64, "local_attention_window_len": 16},
    "cohere_compass_text": WINDOWED
    | {"rope_parameters": {"full_attention": PLAIN_ROPE, "sliding_attention": PLAIN_ROPE}},
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": WINDOWED | {"n_shared_experts": 1},
    "dots3_note_text": {"num_key_value_heads": 4, "per_layer_config": {}, "head_dim": 12},
    "electra": {"embedding_size": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "minimax": {"sliding_window": 4},
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "full_attention"]},
    "mixtral": {"sliding_window": 4},
    "mpt": {"attn_config": {"attn_pdrop": 0}},
    "phi3": {"sliding_window": 4},
    "phimoe": {"sliding_window": 4},
    "plbart": {"decoder_attention_heads": 4, "encoder_attention_heads": 4},
    "qwen2": QWEN_WINDOWED,
    "qwen3": QWEN_WINDOWED,
    "qwen3_moe": QWEN_WINDOWED,
    "qwen4_exp_text": {
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4,
        "indexer_compress_ratio": 2, "hc_lowrank": 8, "ple_embed_dim": 8, "ngram_vocab_size_base": 97,
        "split_ngram_parts": 2, "make_ngram_vocab_size_divisible_by": 1, "heads_per_ngram": 2,
    },
    "reformer": {
        "axial_pos_embds": False, "attn_layers": ["local", "lsh"], "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4, "num_buckets": 2, "num_hashes": 1, "attention_head_size": 8,
        "feed_forward_size": 48, "hash_seed": 0,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "roc_bert": {
        "shape_vocab_size": 97, "pronunciation_vocab_size": 97, "shape_embed_dim": 8,
        "pronunciation_embed_dim": 8,
    },
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": {"sliding_window": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba": ZAMBA,
    "zamba2": ZAMBA | {"n_mamba_heads": 8, "hybrid_layer_ids": [1, 3], "num_mem_blocks": 1},
    "zaya": {"num_experts_per_tok": 1, "sliding_window": 4, "layer_types": ["hybrid", "hybrid_sliding"]},
}  # fmt: skip


def tiny_config(kind: str, **overrides: Any) -> Any:
    """The configuration of a model type in few dimensions."""
    try:
        default = AutoConfig.for_model(kind)
    except ValueError:  # one that does not even have defaults
        return AutoConfig.for_model(kind, **(SMALL | OWN.get(kind, {}) | overrides))
    return AutoConfig.for_model(kind, **(_shrunk(kind, default) | overrides))


def _shrunk(kind: str, default: Any) -> dict[str, Any]:
    fields, own = default.to_dict(), OWN.get(kind, {})
    chosen = {
        name: size
        for name, size in SMALL.items()
        if name in fields and (fields[name] is not None or name in EVEN_IF_NONE)
    }
    if "qk_rope_head_dim" in fields and "num_key_value_heads" in fields:
        chosen |= {"num_key_value_heads": 4, "head_dim": 4}  # latent attention: a key for each head
    if hasattr(default, "is_decoder"):
        chosen["is_decoder"] = True
    types = getattr(default, "layer_types", None)
    written = default.attribute_map.get("layer_types", "layer_types")
    if types and not isinstance(getattr(type(default), written, None), property):
        each = list(dict.fromkeys(types))  # one layer of every kind
        chosen["layer_types"] = each if len(each) > 1 else each * 2
        chosen |= dict.fromkeys({"num_hidden_layers", "n_layer"} & fields.keys(), len(chosen["layer_types"]))
    for name in default.sub_configs:
        part = getattr(default, name, None)
        if part is not None and name not in own:
            chosen[name] = {**_shrunk(part.model_type, part), "model_type": part.model_type}
    return chosen | own


def tiny_architecture(kind: str, **overrides: Any) -> PreTrainedModel:
    """A random model in evaluation mode, float32.

    Raises:
        ValueError: it has more than `LARGEST` parameters.
    """
    with torch.device("meta"):
        count = sum(p.numel() for p in _made(kind, overrides).parameters())
    if count > LARGEST:
        raise ValueError(f"{kind} has {count:,} parameters: a size is missing in the table")
    torch.manual_seed(0)
    return _made(kind, overrides).float().eval()


def _made(kind: str, overrides: dict[str, Any]) -> Any:
    return AutoModelForCausalLM.from_config(tiny_config(kind, **overrides))


def attention_of_parts(model: PreTrainedModel) -> dict[str, str | None]:
    """The attention implementation of a model and of the parts of its configuration, by name."""
    parts = {name: getattr(model.config, name) for name in model.config.sub_configs}
    return {"": model.config._attn_implementation} | {
        name: part._attn_implementation for name, part in parts.items() if part is not None
    }
