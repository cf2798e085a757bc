"""The forest on many architectures: shared where it is exact, else one row per sequence with a warning."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch
from every_architecture import attention_of_parts, tiny_architecture
from exactness import check, one_by_one, value_error
from forests import SHAPES, Forest, forests
from hypothesis import given, settings
from test_forest_logprobs import FOREST
from tiny_models import FALLING_BACK, SHARING, tiny, with_lora

from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning, can_share

tiny_once = cache(tiny)


@pytest.mark.parametrize("kind", SHARING)
def test_shares_and_is_exact(kind: str) -> None:
    model = tiny(kind)
    before = model.config._attn_implementation
    check(model, FOREST)
    assert can_share(model)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", SHARING)
@settings(max_examples=2)
@given(sequences=forests())
def test_random_forests(kind: str, sequences: Forest) -> None:
    check(tiny_once(kind), sequences)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARING)
@settings(max_examples=60)
@given(sequences=forests())
def test_many_random_forests(kind: str, sequences: Forest) -> None:
    check(tiny_once(kind), sequences)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str, kind: str) -> None:
    check(tiny_once(kind), SHAPES[shape])


@pytest.mark.parametrize("kind", sorted(SHARING.keys() - {"llama", "mistral", "mixtral"}))
def test_shares_under_an_adapter(kind: str) -> None:
    check(with_lora(tiny(kind)), FOREST)


def windowed() -> list[str]:
    """Architectures with a window, which is shorter than the trunks and sequences here."""
    return [kind for kind, own in SHARING.items() if own.get("sliding_window")]


@pytest.mark.parametrize("kind", windowed())
def test_sequences_longer_than_the_window_share_a_trunk(kind: str) -> None:
    for shape in ("very unequal lengths", "star", "chain"):
        check(tiny_once(kind), SHAPES[shape])


@pytest.mark.parametrize("kind", FALLING_BACK)
def test_falls_back_with_a_warning_and_is_exact(kind: str) -> None:
    model = tiny(kind)
    before = model.config._attn_implementation
    # without a graph: recurrent_gemma keeps its state on the module, and a graph cannot be copied
    with torch.no_grad(), pytest.warns(FallbackWarning, match=FALLING_BACK[kind][1]):
        values = logprobs(model, FOREST)
    with torch.no_grad():
        assert value_error(values, one_by_one(model, FOREST)) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(model, FOREST)  # said once
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", ["falcon_h1", "lfm2", "mamba"])
def test_mixing_is_noticed_in_an_untrained_model(kind: str) -> None:
    """Small random weights make log-probabilities nearly uniform, which hides what layers mix."""
    sizes = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}
    model = tiny(kind, initializer_range=0.02, **(sizes if kind == "falcon_h1" else {}))
    with pytest.warns(FallbackWarning, match="mix tokens"):
        values = logprobs(model, FOREST)
    assert value_error(values, one_by_one(model, FOREST)) < 1e-5


def test_a_window_without_an_end_is_a_plain_causal_mask() -> None:
    narrow, wide = tiny("mistral"), tiny("mistral", sliding_window=None)
    wide.load_state_dict(narrow.state_dict())
    long = FOREST[0]
    assert value_error(logprobs(narrow, [long, long]), logprobs(wide, [long, long])) > 1e-3
    check(wide, FOREST)


@pytest.mark.parametrize("kind", ["electra", "gemma3n_text", "afmoe", "dbrx", "minimax_m3_vl_text"])
def test_models_of_an_unusual_build(kind: str) -> None:
    """A head narrower than the layers, hidden states of four dimensions, a view of the output, parts
    without an attention of their own, keys chosen in blocks: exact, and all is put back."""
    sparse = {"layer_types": ["full_attention", "minimax_m3_sparse"]} if kind.startswith("minimax") else {}
    model = tiny_architecture(kind, **sparse)
    before = attention_of_parts(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        check(model, [SHAPES["very unequal lengths"][0][:20], *FOREST])
    assert attention_of_parts(model) == before
