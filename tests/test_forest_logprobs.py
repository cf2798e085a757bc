"""`logprobs` equals one row per sequence in plain Transformers: values, gradients, heads, errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from exactness import check, gradients, one_by_one, value_error
from forests import SHAPES, Forest, flagged, forests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from tiny_models import relative_error, tiny, with_lora
from transformers import PreTrainedModel

from luthier.forest import head as head_module
from luthier.forest import logprobs, score
from luthier.forest.logprobs import FallbackWarning, checked_head

TOKEN = st.integers(3, 6)
SEQUENCES = st.lists(st.lists(TOKEN, min_size=1, max_size=12), min_size=1, max_size=6)
FOREST = [
    [3, 4, 5, 6, 7, 8, 9, 10],
    [3, 4, 5, 6, 7, 8, 11],
    [3, 4, 5],
    [3, 4, 12, 13],
    [14, 15],
    [16],
    [3, 4, 5],
]


@cache
def model_of(kind: str, lora: bool) -> PreTrainedModel | PeftModel:
    model = tiny(kind)
    return with_lora(model) if lora else model


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("kind", ["llama", "mistral"])
@settings(max_examples=4)
@given(sequences=forests())
@example(sequences=FOREST)
@example(sequences=[[3], [3], [4]])
@example(sequences=SHAPES["chain"])
@example(sequences=SHAPES["very unequal lengths"])
def test_values_and_gradients_equal_plain_transformers(kind: str, lora: bool, sequences: Forest) -> None:
    check(model_of(kind, lora), sequences)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str) -> None:
    check(model_of("mistral", True), SHAPES[shape])


@settings(max_examples=10)
@given(data=st.data())
def test_needed_chooses_predictions(data: st.DataObject) -> None:
    sequences = data.draw(forests(max_sequences=8, max_length=16))
    check(model_of("llama", True), sequences, data.draw(flagged(sequences)))


def test_unshared_is_the_same() -> None:
    check(model_of("llama", True), FOREST, share=False)
    flags = [[t % 2 == 0 for t in s[1:]] for s in FOREST]
    check(model_of("llama", True), FOREST, flags, share=False)


def test_several_targets_at_a_node_and_targets_in_a_shared_prefix() -> None:
    """After 3, 4 three sequences go on in two ways, and one ends; 4 after 3 is asked for three times."""
    sequences = [[3, 4, 5], [3, 4, 6], [3, 4, 5], [3, 4], [3, 7]]
    for flags in (
        [[True, True], [True, True], [True, True], [True], [True]],
        [[True, False], [True, True], [False, True], [False], [True]],
        [[False, False], [False, False], [True, False], [False], [False]],
    ):
        check(model_of("llama", True), sequences, flags)


def test_a_duplicate_counts_as_often_as_it_is_given() -> None:
    model = model_of("llama", True)
    model.zero_grad()
    values = logprobs(model, [FOREST[0]] * 3 + [FOREST[1]])
    sum(v.sum() for v in values).backward()  # type: ignore[union-attr]
    thrice = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (3 * logprobs(model, [FOREST[0]])[0].sum() + logprobs(model, [FOREST[1]])[0].sum()).backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert relative_error(thrice[name], p.grad) < 1e-4


def test_nothing_and_single_tokens() -> None:
    model = model_of("llama", False)
    assert logprobs(model, []) == []
    assert [len(v) for v in logprobs(model, [[3], [4], [3]])] == [0, 0, 0]
    assert [len(v) for v in score(model, [[3]])] == [0]
    with pytest.raises(ValueError, match="at least one token"):
        logprobs(model, [[3, 4], []])


def test_shared_tokens_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = model_of("llama", False), []
    original = model.model.embed_tokens.forward
    monkeypatch.setattr(
        model.model.embed_tokens, "forward", lambda ids: (seen.append(ids.shape), original(ids))[1]
    )
    logprobs(model, [[3, 4, 5], [3, 4, 6]])
    assert seen[-1] == (1, 4)


@pytest.mark.parametrize("max_tokens", [1, 9, 1000])
def test_score_gives_the_same_values_in_the_order_given(max_tokens: int) -> None:
    model, finished = model_of("mistral", True), []
    flags = [[t % 2 == 0 for t in s[1:]] for s in FOREST]
    got = score(model, FOREST, needed=flags, max_tokens=max_tokens, advance=finished.append)
    for values, sequence, flag in zip(got, FOREST, flags, strict=True):
        assert value_error([values], one_by_one(model, [sequence], [flag])) < 1e-5
        assert not values.requires_grad
    assert sum(finished) == len(FOREST)


# The head -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite", "cohere2", "phi"])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_heads(kind: str, trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soft-capped, scaled, with a bias; 3 predictions at once, the vocabulary in tiles of 20 tokens."""
    monkeypatch.setattr(head_module, "CHUNK", 3)
    monkeypatch.setattr(head_module, "TILE_NUMBERS", {"cpu": 60, "cuda": 60})
    monkeypatch.setattr(head_module, "TRAINED_CHUNK", 3)
    model = tiny(kind, tie_word_embeddings=False)
    model.requires_grad_(True)
    model.get_output_embeddings().requires_grad_(trained)
    assert checked_head(model) is not None
    check(model, FOREST)
    assert any("lm_head" in name for name in gradients(model, logprobs(model, FOREST))) == trained


def test_tied_embeddings_get_both_gradients() -> None:
    model = tiny("llama", tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    check(model, FOREST)


@pytest.mark.parametrize(
    "options", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}]
)
def test_an_adapted_head_is_left_to_the_model(options: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(
        tiny("llama"), LoraConfig(r=4, **({"target_modules": ["q_proj"]} | options))
    ).eval()
    assert checked_head(model.get_base_model()) is None
    check(model, FOREST)


def test_a_head_with_an_unknown_scaling_is_left_to_the_model() -> None:
    model = tiny("llama")
    model.lm_head.register_forward_hook(lambda module, inputs, output: output * 1.001)
    assert checked_head(model) is None
    check(model, FOREST)


def test_a_model_that_computes_all_logits_is_read_at_the_right_nodes() -> None:
    model = tiny("llama")
    original = model.forward

    def forward(input_ids: torch.Tensor, use_cache: bool = False, **kwargs: Any) -> Any:
        kwargs.pop("logits_to_keep", None)
        output = original(input_ids=input_ids, use_cache=use_cache, **kwargs)
        output["logits"] = output.logits * 1.5
        return output

    model.forward = forward
    assert checked_head(model) is None
    check(model, FOREST)


# What must not change, and what cannot be shared ----------------------------------------------------


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_is_put_back(implementation: str) -> None:
    model = tiny("llama")
    model.set_attn_implementation(implementation)
    logprobs(model, FOREST)
    assert model.config._attn_implementation == implementation


def test_the_attention_is_put_back_after_an_error() -> None:
    model = tiny("llama")
    logprobs(model, FOREST)
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logprobs(model, FOREST)
    assert model.config._attn_implementation == "sdpa"


def test_the_trial_leaves_the_mode_alone() -> None:
    model = tiny("llama").train()
    logprobs(model, FOREST)
    assert model.training
    assert all(module.training for module in model.modules())


def test_dropout_in_attention_falls_back() -> None:
    model = tiny("llama", attention_dropout=0.5).train()
    with pytest.warns(FallbackWarning, match="dropout inside attention"):
        logprobs(model, FOREST)
    assert model.config._attn_implementation == "sdpa"
    model.eval()
    check(model, FOREST)


def test_gradient_checkpointing_falls_back_and_is_exact() -> None:
    model = tiny("llama")
    expected = gradients(model, one_by_one(model, FOREST))
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    model.train()
    with pytest.warns(FallbackWarning, match="gradient checkpointing"):
        values = logprobs(model, FOREST)
    got = gradients(model, values)
    assert all(relative_error(got[name], expected[name]) < 1e-4 for name in got)


@pytest.mark.parametrize("rope", [{"rope_type": "dynamic", "factor": 4.0}, "longrope"])
def test_a_rope_that_depends_on_the_longest_row(rope: Any) -> None:
    if rope == "longrope":
        rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 2.0}
        rope["original_max_position_embeddings"] = 6
    model = tiny("llama", rope_parameters={"rope_theta": 100.0, **rope}, max_position_embeddings=6)
    short = [s[:6] for s in FOREST]
    assert value_error(logprobs(model, short), one_by_one(model, short)) < 1e-5
    with pytest.warns(FallbackWarning, match="longest row"):
        values = logprobs(model, FOREST)
    assert value_error(values, one_by_one(model, FOREST)) < 1e-5
