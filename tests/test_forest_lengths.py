"""What begins beyond a number of tokens that the first trial does not reach: windows, steps of a scale."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from every_architecture import tiny_architecture
from exactness import check, one_by_one, value_error
from forests import Forest

from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning
from luthier.generate import generate

STEM = [3 + (5 * i) % 40 for i in range(20)]
SHORT: Forest = [[3, 4, 5, 6], [3, 4, 7]]
LONG: Forest = [[*STEM, 50, 51, 52], [*STEM, 50, 60], STEM[:4], [70, 71, 72], [80]]
# a scale of queries by their place in the row, which this architecture counts by itself
STEPS: dict[str, Any] = {
    "layer_types": ["full_attention"] * 2,
    "no_rope_layers": [1, 0],
    "attn_scale": 0.5,
    "attention_chunk_size": 99,
}


def test_a_step_beyond_the_trial_is_tried_when_it_is_met() -> None:
    model = tiny_architecture("llama4_text", floor_scale=9, **STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(model, SHORT)
    with pytest.warns(FallbackWarning, match="beyond 9 tokens"):
        check(model, LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(model, SHORT)  # is still shared


def test_a_step_is_met_by_many_short_rows_too() -> None:
    """Packed, they are longer than the step, though none of them is."""
    model = tiny_architecture("llama4_text", floor_scale=9, **STEPS)
    with pytest.warns(FallbackWarning, match="beyond 9 tokens"):
        check(model, [[token, 4, 5, 6] for token in range(10, 15)])


@pytest.mark.parametrize(
    ("prompts", "tokens"),
    [([STEM, [*STEM[:-1], 50]], 1), (SHORT, 8)],
    ids=["in the prompt", "while writing"],
)
def test_generation_meets_a_step_too(prompts: Forest, tokens: int) -> None:
    model = tiny_architecture("llama4_text", floor_scale=9, **STEPS)
    with pytest.warns(FallbackWarning, match="beyond 9 tokens"):
        generated = generate(model, prompts, max_new_tokens=tokens, stop_ids=frozenset())
    for prompt, got in zip(prompts, generated, strict=True):
        (values,) = logprobs(model, [[*prompt, *got.ids]], share=False)
        assert got.logprob == pytest.approx(float(values[len(prompt) - 1 :].sum().detach()), rel=1e-5)


def test_generation_below_a_step_is_shared() -> None:
    model = tiny_architecture("llama4_text", floor_scale=9, **STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(model, SHORT, max_new_tokens=2, stop_ids=frozenset())


WINDOWS = {
    "afmoe": {"sliding_window": 9},  # takes a view of what attention returns
    "gemma2": {"sliding_window": 9, "attn_logit_softcapping": 0.5},
    "mistral": {"sliding_window": 9},
    "modernbert-decoder": {"local_attention": 10},
}


@pytest.mark.parametrize("kind", WINDOWS)
def test_a_window_beyond_the_trial_is_shared(kind: str) -> None:
    model = tiny_architecture(kind, **WINDOWS[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(model, LONG)


@pytest.mark.parametrize("kind", ["mamba", "falcon_h1"])
def test_a_model_in_float64_is_tried_as_strictly(kind: str) -> None:
    """Small weights mix so little that the tolerance of half precision would let it pass."""
    model = tiny_architecture(kind, initializer_range=0.02).double()
    with torch.no_grad(), pytest.warns(FallbackWarning, match="mix tokens"):
        values = logprobs(model, LONG)
    with torch.no_grad():
        assert value_error(values, one_by_one(model, LONG)) < 1e-6


def test_a_model_in_float64_shares() -> None:
    model = tiny_architecture("llama").double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(model, LONG)
