"""The forest on many architectures: shared where it is exact, else one row per sequence with a warning."""

from __future__ import annotations

import warnings

import pytest
import torch
from test_forest_logprobs import FOREST, check
from tiny_models import FALLING_BACK, SHARING, plain_logprobs, relative_error, tiny, with_lora

from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning, can_share


@pytest.mark.parametrize("kind", SHARING)
def test_shares_and_is_exact(kind: str) -> None:
    model = tiny(kind)
    before = model.config._attn_implementation
    check(model, FOREST)
    assert can_share(model)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", sorted(SHARING.keys() - {"llama", "mistral", "mixtral"}))
def test_shares_under_an_adapter(kind: str) -> None:
    check(with_lora(tiny(kind)), FOREST)


@pytest.mark.parametrize("kind", FALLING_BACK)
def test_falls_back_with_a_warning_and_is_exact(kind: str) -> None:
    model = tiny(kind)
    before = model.config._attn_implementation
    with pytest.warns(FallbackWarning, match=FALLING_BACK[kind][1]):
        values = logprobs(model, FOREST)
    for sequence, got in zip(FOREST, values, strict=True):
        assert relative_error(got, plain_logprobs(model, sequence)) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logprobs(model, FOREST)  # said once
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("kind", ["falcon_h1", "lfm2", "mamba"])
def test_mixing_is_noticed_in_an_untrained_model(kind: str) -> None:
    """Small random weights make log-probabilities nearly uniform, which hides what layers mix."""
    sizes = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}
    model = tiny(kind, initializer_range=0.02, **(sizes if kind == "falcon_h1" else {}))
    with pytest.warns(FallbackWarning, match="mix tokens"):
        values = logprobs(model, FOREST)
    assert relative_error(values[0], plain_logprobs(model, FOREST[0])) < 1e-5


def test_a_window_without_an_end_is_a_plain_causal_mask() -> None:
    torch.manual_seed(0)
    narrow, wide = tiny("mistral"), tiny("mistral", sliding_window=None)
    wide.load_state_dict(narrow.state_dict())
    long = FOREST[0]
    assert relative_error(logprobs(narrow, [long, long])[0], logprobs(wide, [long, long])[0]) > 1e-3
