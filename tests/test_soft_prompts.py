"""Prefix and prompt tuning as the root of the forest: values and gradients are those of plain PEFT."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import (
    MultitaskPromptTuningConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from test_forest_logprobs import FOREST, SEQUENCES, TOKEN
from tiny_models import relative_error, tiny

from luthier.errors import ModelError
from luthier.forest import logprobs, score
from luthier.forest.logprobs import FallbackWarning, can_share
from luthier.forest.root import root_of
from luthier.generate import generate

CONFIGS = {
    "prefix": (PrefixTuningConfig, {}),
    "projected prefix": (PrefixTuningConfig, {"prefix_projection": True, "encoder_hidden_size": 8}),
    "prompt": (PromptTuningConfig, {}),
    "p-tuning": (PromptEncoderConfig, {"encoder_hidden_size": 8}),
}
BOTH = ["prefix", "prompt"]
# learned positions, a window shorter than the prefix, two kinds of layers, capped scores, scaled embeddings
KINDS = [
    "llama",
    "gpt2",
    "mistral",
    "gemma2",
    "gemma3_text",
    "gpt_neox",
    "phi3",
    "granite",
    "mixtral",
    "gpt_oss",
]


def with_root(kind: str, root: str, *, length: int = 6, seed: int = 0, **overrides: Any) -> PeftModel:
    """A tiny model with random virtual tokens of a size that matters."""
    make, options = CONFIGS[root]
    if kind in ("gpt2", "gpt_neox", "gptj"):  # a key that they do not know, but PEFT reads
        overrides["num_key_value_heads"] = 4
    base = tiny(kind, **overrides)
    torch.manual_seed(seed)
    model = get_peft_model(base, make(task_type="CAUSAL_LM", num_virtual_tokens=length, **options))
    with torch.no_grad():
        for parameter in model.prompt_encoder.parameters():
            parameter.normal_(std=0.7)
    return model.eval()


@cache
def model_of(kind: str, root: str) -> PeftModel:
    return with_root(kind, root)


def peft_logprobs(model: torch.nn.Module, sequence: list[int]) -> torch.Tensor:
    """What plain PEFT gives for one sequence in a row of its own: `[len - 1]`."""
    logits = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -len(sequence) : -1].float()
    targets = torch.tensor(sequence[1:], dtype=torch.long)
    return torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]


def gradients(model: PeftModel, values: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of a sum with uneven weights, so that no two predictions are interchangeable."""
    model.zero_grad()
    total = sum((v * torch.linspace(0.5, 1.5, len(v) + i)[i:]).sum() for i, v in enumerate(values))
    if torch.is_tensor(total) and total.requires_grad:
        total.backward()
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad
        for n, p in model.named_parameters()
        if p.requires_grad
    }


def check(
    model: PeftModel, sequences: list[list[int]], flags: list[list[bool]] | None = None, **options: Any
) -> None:
    values = logprobs(model, sequences, needed=flags, **options)
    expected = [peft_logprobs(model, s) for s in sequences]
    if flags is not None:
        expected = [e[torch.tensor(f, dtype=torch.bool)] for e, f in zip(expected, flags, strict=True)]
    assert [len(v) for v in values] == [len(e) for e in expected]
    assert relative_error(torch.cat(values), torch.cat(expected)) < 1e-5
    got, wanted = gradients(model, values), gradients(model, expected)
    assert wanted.keys() == {n for n, _ in model.named_parameters() if "prompt_encoder" in n}
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 0 or not any(len(v) for v in values)
    assert all(float((got[n] - wanted[n]).abs().max()) <= 1e-5 * largest for n in wanted)


@pytest.mark.parametrize("root", BOTH)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_plain_peft(kind: str, root: str) -> None:
    model = model_of(kind, root)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        check(model, FOREST)
    assert can_share(model)
    check(model, [FOREST[0]])


@pytest.mark.parametrize("root", BOTH)
@settings(max_examples=10)
@given(sequences=SEQUENCES)
@example(sequences=[[3], [3], [4]])
@example(sequences=[[3, 4, 5], [6, 7, 8]])
def test_random_forests(root: str, sequences: list[list[int]]) -> None:
    check(model_of("mistral", root), sequences)


@pytest.mark.parametrize("root", BOTH)
@settings(max_examples=10)
@given(data=st.data())
def test_needed_chooses_predictions(root: str, data: st.DataObject) -> None:
    sequences = data.draw(st.lists(st.lists(TOKEN, min_size=1, max_size=8), min_size=1, max_size=4))
    flags = [data.draw(st.lists(st.booleans(), min_size=len(s) - 1, max_size=len(s) - 1)) for s in sequences]
    check(model_of("llama", root), sequences, flags)


@pytest.mark.parametrize("root", ["projected prefix", "p-tuning"])
def test_encoders_with_a_network_are_trained_too(root: str) -> None:
    check(model_of("llama", root), FOREST)


@pytest.mark.parametrize("root", BOTH)
@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_windows_shorter_and_longer_than_the_root(root: str, length: int) -> None:
    check(with_root("gemma3_text", root, length=length), FOREST)


@pytest.mark.parametrize("root", BOTH)
def test_unshared_is_the_same(root: str) -> None:
    check(model_of("llama", root), FOREST, share=False)
    flags = [[t % 2 == 0 for t in s[1:]] for s in FOREST]
    check(model_of("llama", root), FOREST, flags, share=False)


@pytest.mark.parametrize("root", BOTH)
def test_score_and_the_base_underneath(root: str) -> None:
    model = model_of("llama", root)
    for got, sequence in zip(score(model, FOREST, max_tokens=9), FOREST, strict=True):
        assert relative_error(got, peft_logprobs(model, sequence)) < 1e-5
        assert not got.requires_grad
    base = model.get_base_model()
    with model.disable_adapter():
        assert root_of(model) is None
        without = logprobs(model, FOREST)
    for got, sequence in zip(without, FOREST, strict=True):
        assert relative_error(got, peft_logprobs(base, sequence)) < 1e-5
    assert relative_error(torch.cat(without), torch.cat(logprobs(model, FOREST))) > 1e-2


@pytest.mark.parametrize("root", BOTH)
def test_the_root_is_computed_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = model_of("llama", root), []
    layer = model.get_base_model().model.layers[0]
    original = layer.forward
    monkeypatch.setattr(layer, "forward", lambda x, **k: (seen.append(x.shape[1]), original(x, **k))[1])
    logprobs(model, [[3, 4, 5], [3, 4, 6], [7, 8]])
    assert seen == [6 + (6 if root == "prompt" else 0)]


@pytest.mark.parametrize("root", BOTH)
@pytest.mark.parametrize("kind", ["stablelm", "gptj"])
def test_architectures_that_cannot_share_fall_back_to_plain_peft(kind: str, root: str) -> None:
    model = with_root(kind, root)
    with pytest.warns(FallbackWarning, match="public interface"):
        logprobs(model, FOREST)
    check(model, FOREST)


@pytest.mark.parametrize("root", BOTH)
def test_errors_are_those_without_a_root(root: str) -> None:
    model = model_of("llama", root)
    assert logprobs(model, []) == []
    with pytest.raises(ValueError, match="at least one token"):
        logprobs(model, [[3, 4], []])
    with pytest.raises(ValueError, match="expected 1 flags for a sequence, got 2"):
        logprobs(model, [[3, 4], [3, 5]], needed=[[True], [True, False]])


def test_a_root_that_depends_on_the_example_is_refused() -> None:
    config = MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=2)
    model = get_peft_model(tiny("llama"), config)
    with pytest.raises(ModelError, match="MULTITASK_PROMPT_TUNING are not computed"):
        logprobs(model, FOREST)


def test_half_precision_prompts_take_the_models_dtype() -> None:
    model = with_root("llama", "prompt")
    model.get_base_model().to(torch.bfloat16)
    values = logprobs(model, FOREST[:2])
    assert all(v.dtype == torch.float32 for v in values)
    for got, sequence in zip(values, FOREST, strict=False):
        assert relative_error(got, peft_logprobs(model, sequence)) < 5e-2


# Generation ----------------------------------------------------------------------------------------


def greedily(model: PeftModel, prompt: list[int], count: int) -> list[int]:
    """By plain PEFT forwards, without a cache of the text."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("root", BOTH)
@pytest.mark.parametrize("shared", [0, 20])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "gemma3_text"])
def test_generation_equals_plain_peft(kind: str, shared: int, root: str) -> None:
    model = model_of(kind, root)
    trunk = [(5 * i) % 80 + 3 for i in range(shared)]
    prompts = [[*trunk, *row] for row in ([3], [9, 8, 7], [9, 8, 6, 5, 4], [50, 51])]
    results = generate(model, prompts, max_new_tokens=6, stop_ids=frozenset(), batch_size=3)
    with torch.no_grad():
        assert [list(r.ids) for r in results] == [greedily(model, prompt, 6) for prompt in prompts]
    for prompt, result in zip(prompts, results, strict=True):
        own = peft_logprobs(model, [*prompt, *result.ids])[len(prompt) - 1 :]
        assert result.logprob == pytest.approx(own.sum().item(), rel=1e-4, abs=1e-5)
    assert [r.ids for r in generate(model, prompts[:1], max_new_tokens=6, stop_ids=frozenset())] == [
        results[0].ids
    ]


@pytest.mark.parametrize("root", BOTH)
def test_generation_row_by_row_equals_plain_peft(root: str) -> None:
    model = with_root("stablelm", root)
    with pytest.warns(FallbackWarning, match="public interface"):
        (result,) = generate(model, [[3, 4, 5]], max_new_tokens=5, stop_ids=frozenset())
    with torch.no_grad():
        assert list(result.ids) == greedily(model, [3, 4, 5], 5)
    own = peft_logprobs(model, [3, 4, 5, *result.ids])[2:]
    assert result.logprob == pytest.approx(own.sum().item(), rel=1e-4)


@pytest.mark.parametrize("root", BOTH)
def test_generation_without_the_adapter_is_the_bases(root: str) -> None:
    model = model_of("llama", root)
    prompts = [[3, 4, 5], [6, 7]]
    with model.disable_adapter():
        without = generate(model, prompts, max_new_tokens=6, stop_ids=frozenset())
    base = generate(model.get_base_model(), prompts, max_new_tokens=6, stop_ids=frozenset())
    assert [r.ids for r in without] == [r.ids for r in base]
