"""Every causal language model of Transformers: shared and exact, or one row each with a warning and exact."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest
from every_architecture import ARCHITECTURES, QWEN_WINDOWED, attention_of_parts, tiny_architecture
from exactness import check
from forests import Forest
from transformers import PreTrainedModel

from luthier.forest.logprobs import FallbackWarning, can_share

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

STEM = [3, 4, 5, 6, 7, 8, 9, 10, 3, 5, 4, 3, 6, 7, 8, 9]
ROWS: Forest = [
    [*STEM, 20, 21, 22, 23],
    [*STEM, 20, 21, 30, 31],
    [*STEM[:6], 11],
    STEM[:3],
    [*STEM[:2], 12, 13],
    [14, 15],
    [16],
    STEM[:3],
]

# what shares; the rest of the architectures falls back
SHARED = (
    "afmoe apertus arcee aria_text axk1 beam bert bert-generation biogpt bitnet cohere cohere2 "
    "cohere2_moe cohere_compass_text ctrl cwm dbrx deepseek_v2 deepseek_v3 dots1 electra emu3 ernie "
    "ernie4_5 ernie4_5_moe exaone4 exaone_moe flex_olmo flint fuyu gemma gemma2 gemma3 gemma3_text "
    "gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite "
    "gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_oss granite granite_swa granitemoe granitemoe_swa "
    "granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder "
    "jais2 jetmoe kolibri1 laguna llama longcat_flash mellum mimo_v2_flash minicpm3 minimax_m2 "
    "minimax_m3_vl_text ministral ministral3 mistral mixtral mllama modernbert-decoder "
    "moss_transcribe_diarize nanochat olmo olmo2 olmo3 olmoe opt persimmon phi phi3 phi4_multimodal qwen2 "
    "qwen2_moe qwen3 qwen3_moe roc_bert seed_oss smollm3 solar_open starcoder2 vaultgemma whisper youtu "
)
SHARING = set(SHARED.split())
NO_TEXT_ALONE = "its configuration alone makes no language model"
NOT_BUILT = {
    "blt": "sizes of its byte patches do not follow from its configuration",
    "dots3_note": "its text part is tried alone, as dots3_note_text",
    "gemma3n": "its images need another library",
    "gemma4_assistant": "it drafts for another model, whose states it takes",
    "gemma4_unified_assistant": "it drafts for another model, whose states it takes",
    "musicgen": NO_TEXT_ALONE,
    "musicgen_melody": NO_TEXT_ALONE,
    "reformer": "it has no gradient in evaluation mode, and random hashes in training mode",
}
# the same architectures with a term that their defaults leave out
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention scaled by position": (
        "ministral3",
        {
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 100.0, "llama_4_scaling_beta": 0.5,
                "original_max_position_embeddings": 4,
            }
        },
    ),
    "llama 4 without chunks": (
        "llama4_text",
        {
            "layer_types": ["full_attention"] * 2,
            "no_rope_layers": [1, 0],
            "floor_scale": 4,
            "attn_scale": 0.5,
        },
    ),
    "gpt2 scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gemma 3 in both directions": ("gemma3_text", {"use_bidirectional_attention": True}),
    "bert in both directions": ("bert", {"is_decoder": False}),
    "one key head": ("gpt_bigcode", {"multi_query": True}),
    "a head for each query": ("gpt_bigcode", {"multi_query": False}),
    "yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
             "original_max_position_embeddings": 8}}),
    "longrope": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
            },
            "original_max_position_embeddings": 8,
        },
    ),
    "keys chosen in blocks": ("minimax_m3_vl_text", {"layer_types": ["full_attention", "minimax_m3_sparse"]}),
    "keys of another layer": (
        "gemma4_text",
        {
            "num_hidden_layers": 4, "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "a window that only the mask has": ("qwen2_moe", QWEN_WINDOWED),
    "normed queries": ("stablelm", {"qk_layernorm": True}),
    "parallel residual": ("gpt_neox", {"use_parallel_residual": False}),
    "falcon with alibi": ("falcon", {"alibi": True}),
}  # fmt: skip


def _shares_without_a_warning(model: PreTrainedModel) -> bool:
    """Checks exactness; whether it shared. One that did not must have said so."""
    before = attention_of_parts(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(model, ROWS)
    assert attention_of_parts(model) == before
    said = any(issubclass(w.category, FallbackWarning) for w in caught)
    shared = can_share(model) and not said
    assert shared != said
    return shared


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_shares_or_says_that_it_does_not(kind: str) -> None:
    if kind in NOT_BUILT:
        pytest.skip(NOT_BUILT[kind])
    shared = _shares_without_a_warning(tiny_architecture(kind))
    assert shared == (kind in SHARING), "the table is old" if shared else "sharing was lost"


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str) -> None:
    kind, overrides = VARIANTS[variant]
    _shares_without_a_warning(tiny_architecture(kind, **overrides))


@pytest.mark.parametrize("kind", sorted(SHARING))
def test_an_untrained_model_of_the_usual_size_of_weights(kind: str) -> None:
    """Weights of 0.02 hide what large ones show, and the trial must still see it."""
    with contextlib.suppress(TypeError):
        _shares_without_a_warning(tiny_architecture(kind, initializer_range=0.02))
