"""Dropout while training: exact, or refused with a reason; never one draw for sequences that share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from exactness import check
from test_forest_logprobs import FOREST
from tiny_models import tiny, with_lora

from luthier.errors import LuthierError
from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning


def _with_a_dropout_module() -> Any:
    model = tiny("llama")
    model.model.layers[0].mlp = torch.nn.Sequential(model.model.layers[0].mlp, torch.nn.Dropout(0.3))
    return model


DROPPING: dict[str, Callable[[], Any]] = {
    "attention": lambda: tiny("llama", attention_dropout=0.3),
    "residual": lambda: tiny("gpt2", resid_pdrop=0.3),
    "embeddings": lambda: tiny("gpt2", embd_pdrop=0.3),
    "attention of gpt2": lambda: tiny("gpt2", attn_pdrop=0.3),
    "hidden": lambda: tiny("gpt_neox", hidden_dropout=0.3),
    "residual of phi3": lambda: tiny("phi3", resid_pdrop=0.3),
    "a module of one's own": _with_a_dropout_module,
    "noise of a router": lambda: tiny("mixtral", router_jitter_noise=0.3),
    "adapters": lambda: with_lora(tiny("llama"), lora_dropout=0.3),
    "adapters of one layer": lambda: with_lora(
        tiny("llama"), lora_dropout=0.3, target_modules=["q_proj"], layers_to_transform=[1]
    ),
}


@pytest.mark.parametrize("place", DROPPING)
def test_dropout_is_refused_or_falls_back_and_is_never_shared(place: str) -> None:
    """Shared tokens would have the same numbers dropped for every sequence: not what one row each gives."""
    model = DROPPING[place]()
    model.train()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values = logprobs(model, [FOREST[0]] * 8)
        except LuthierError as error:
            assert "dropout" in str(error)
            values = None
    if values is not None:
        said = [str(w.message) for w in caught if issubclass(w.category, FallbackWarning)]
        assert any("dropout" in text or "noise" in text for text in said)
        assert len({float(v.detach().sum()) for v in values}) > 1, "each row has a dropout of its own"
    model.eval()
    check(model, FOREST)
