"""bfloat16, autocast and accelerators: as near to the truth as plain Transformers is."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from exactness import check, gradient_error, gradients, in_float64, one_by_one, value_error
from forests import SHAPES
from test_forest_logprobs import FOREST
from tiny_models import tiny, with_lora

from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning, can_share


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "qwen3", "gpt2", "mixtral", "gpt_oss"])
def test_bfloat16_is_as_near_as_plain_bfloat16(kind: str) -> None:
    model = tiny(kind, initializer_range=0.1)
    wide = in_float64(model)
    narrow = copy.deepcopy(model).bfloat16()
    expected = one_by_one(wide, FOREST)
    values = logprobs(narrow, FOREST)
    assert can_share(narrow)
    assert all(v.dtype == torch.float32 for v in values)
    plain = one_by_one(narrow, FOREST)
    assert value_error(values, expected) < 2 * value_error(plain, expected) + 5e-3
    wanted = gradients(wide, expected)
    own, _ = gradient_error(gradients(narrow, plain), wanted)
    assert gradient_error(gradients(narrow, values), wanted)[0] < 2 * own + 2e-2


def test_autocast_is_as_near_as_plain_autocast() -> None:
    model = with_lora(tiny("llama", initializer_range=0.1))
    wide = in_float64(model)
    expected = one_by_one(wide, FOREST)
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("ignore", FallbackWarning)
        values, plain = logprobs(model, FOREST), one_by_one(model, FOREST)
    assert value_error(values, expected) < 2 * value_error(plain, expected) + 5e-3
    wanted = gradients(wide, expected)
    own, _ = gradient_error(gradients(model, plain), wanted)
    assert gradient_error(gradients(model, values), wanted)[0] < 2 * own + 2e-2


def test_autocast_does_not_decide_for_later() -> None:
    model = tiny("llama")
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("ignore", FallbackWarning)
        logprobs(model, FOREST)
    check(model, FOREST)
    assert can_share(model)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "qwen3", "gpt_oss"])
def test_on_an_accelerator(kind: str, dtype: torch.dtype) -> None:
    model = tiny(kind, initializer_range=0.1)
    wide = in_float64(model)
    there = copy.deepcopy(model).to("cuda", dtype)
    rows = SHAPES["star"]
    expected = one_by_one(wide, rows)
    wanted = gradients(wide, expected)
    values = logprobs(there, rows)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    assert value_error([v.cpu() for v in values], expected) < tolerance
    got = {name: g.cpu() for name, g in gradients(there, values).items()}
    assert gradient_error(got, wanted)[0] < 10 * tolerance
