"""Hidden states from the forest: those of plain Transformers, one row per sequence, values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from exactness import TOLERANCE, gradient_error, gradients, in_float64, value_error
from forests import SHAPES, Forest, forests
from hypothesis import example, given, settings
from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tiny_models import relative_error, tiny, with_lora
from transformers import PreTrainedModel

from luthier.errors import ModelError
from luthier.forest import logprobs, soft_targets
from luthier.forest.features import logprobs_and_states, states_at
from luthier.forest.logprobs import FallbackWarning, can_share

FOREST = [
    [3, 4, 5, 6, 7, 8, 9, 10],
    [3, 4, 5, 6, 7, 8, 11],
    [3, 4, 5],
    [3, 4, 12, 13],
    [14, 15],
    [16],
    [3, 4, 5],
]
FLAGS = [[t % 3 != 1 for t in range(len(s) - 1)] for s in FOREST]
KINDS = ["llama", "mistral", "gemma2", "gpt2", "granite", "cohere2", "gpt_neox", "mixtral"]
Values = Callable[[Any], list[torch.Tensor]]


@cache
def model_of(kind: str, lora: bool = True) -> PreTrainedModel | PeftModel:
    model = tiny(kind)
    return with_lora(model) if lora else model


def own_row(model: torch.nn.Module, sequence: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities `[T - 1]` and states `[T, D]` of one row in plain Transformers."""
    ids = torch.tensor([list(sequence)])
    output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    logps = torch.log_softmax(output.logits[0, -len(sequence) :][:-1], dim=-1)
    return logps.gather(1, ids[0, 1:, None])[:, 0], output.hidden_states[-1][0, -len(sequence) :]


def check_exact(model: Any, ours: Values, naive: Values) -> None:
    """`ours` of the model is `naive` of the model in float64; float32's own error may come on top."""
    wide = in_float64(model)
    got, expected = ours(model), naive(wide)
    slopes, wanted = gradients(model, got), gradients(wide, expected)
    off, (slope_off, name) = value_error(got, expected), gradient_error(slopes, wanted)
    if off <= TOLERANCE and slope_off <= TOLERANCE:
        return
    plain = naive(model)
    own_off, own_slope_off = value_error(plain, expected), gradient_error(gradients(model, plain), wanted)[0]
    assert off <= max(TOLERANCE, 2 * own_off), f"values off by {off:.1e}, float32 by {own_off:.1e}"
    assert slope_off <= max(TOLERANCE, 2 * own_slope_off), f"gradient of {name or 'all'}: {slope_off:.1e}"


def check_features(model: Any, sequences: Forest, flags: list[list[bool]] | None, **options: Any) -> None:
    """Both primitives are exact on these sequences."""
    chosen = [[True] * (len(s) - 1) for s in sequences] if flags is None else flags

    def states(m: Any) -> list[torch.Tensor]:
        found = logprobs_and_states(m, sequences, needed=flags, **options)
        return [own.flatten() for _, own in found]

    def values(m: Any) -> list[torch.Tensor]:
        found = logprobs_and_states(m, sequences, needed=flags, **options)
        return [own for own, _ in found]

    def naive_states(m: Any) -> list[torch.Tensor]:
        rows = [own_row(m, s)[1] for s in sequences]
        return [
            row[:-1][torch.tensor(f, dtype=torch.bool)].flatten() for row, f in zip(rows, chosen, strict=True)
        ]

    def naive_values(m: Any) -> list[torch.Tensor]:
        rows = [own_row(m, s)[0] for s in sequences]
        return [row[torch.tensor(f, dtype=torch.bool)] for row, f in zip(rows, chosen, strict=True)]

    check_exact(model, states, naive_states)
    check_exact(model, values, naive_values)
    check_exact(
        model,
        lambda m: states_at(m, sequences, **options),
        lambda m: [own_row(m, s)[1][-1] for s in sequences],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_states_and_log_probabilities_are_those_of_rows_of_their_own(kind: str) -> None:
    model = model_of(kind, lora=kind != "mixtral")  # its experts are no linear layers
    assert can_share(model)
    check_features(model, FOREST, FLAGS)


@settings(max_examples=3)
@given(sequences=forests(max_sequences=8, max_length=20))
@example(sequences=[[3], [3], [4]])
@example(sequences=SHAPES["chain"])
@example(sequences=SHAPES["duplicates"])
def test_any_forest(sequences: Forest) -> None:
    check_features(model_of("llama"), sequences, None)


def test_all_weights_trained_and_nothing_shared() -> None:
    model = model_of("llama", False)
    check_features(model, FOREST, FLAGS)
    check_features(model, FOREST, FLAGS, share=False)


def test_one_sequence() -> None:
    check_features(model_of("llama"), [FOREST[0]], [FLAGS[0]])


@pytest.mark.parametrize("kind", ["mamba", "gptj", "stablelm"])
def test_a_model_that_cannot_share_computes_rows(kind: str) -> None:
    model = tiny(kind)
    with pytest.warns(FallbackWarning):
        states_at(model, FOREST)
    check_features(model, FOREST, FLAGS)


def test_an_adapted_head_changes_log_probabilities_and_no_state() -> None:
    model = with_lora(tiny("llama"), target_modules=["lm_head", "q_proj"])
    check_features(model, FOREST, FLAGS)


@pytest.mark.parametrize("make", [PrefixTuningConfig, PromptTuningConfig])
@pytest.mark.parametrize("share", [True, False])
def test_behind_virtual_tokens(make: Any, share: bool) -> None:
    torch.manual_seed(0)
    model = get_peft_model(tiny("llama"), make(task_type="CAUSAL_LM", num_virtual_tokens=5)).eval()
    with torch.no_grad():
        for parameter in model.prompt_encoder.parameters():
            parameter.normal_(std=0.7)
    check_features(model, FOREST, FLAGS, share=share)


def test_any_token_can_be_asked_for() -> None:
    model, places = model_of("llama"), [0, 3, 1, 2, 1, 0, 2]
    got = states_at(model, FOREST, places=places)
    for state, sequence, place in zip(got, FOREST, places, strict=True):
        assert relative_error(state, own_row(model, sequence)[1][place]) < 1e-5
    last = states_at(model, FOREST)
    assert relative_error(last[0], own_row(model, FOREST[0])[1][3]) > 1e-2, "not the token asked for before"
    assert torch.equal(last[2], last[6]), "the same sequence twice"
    with pytest.raises(ValueError, match="of 1 tokens has no token 1"):
        states_at(model, FOREST, places=[0, 0, 0, 0, 0, 1, 0])
    with pytest.raises(ValueError, match="has no token -1"):
        states_at(model, FOREST, places=[-1, 0, 0, 0, 0, 0, 0])


def test_nothing_and_empty_sequences() -> None:
    model = model_of("llama")
    assert states_at(model, []) == []
    assert logprobs_and_states(model, []) == []
    (logps, states), _ = logprobs_and_states(model, [[3], [4, 5]])
    assert logps.shape == (0,) and states.shape == (0, 32)
    with pytest.raises(ValueError, match="at least one token"):
        states_at(model, [[3, 4], []])


def test_shared_tokens_are_computed_once_and_the_head_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen, headed = tiny("llama"), [], []
    states_at(model, FOREST)  # what is tried once is over
    original = model.model.embed_tokens.forward
    monkeypatch.setattr(
        model.model.embed_tokens, "forward", lambda ids: (seen.append(ids.shape), original(ids))[1]
    )
    model.lm_head.register_forward_pre_hook(lambda module, args: headed.append(args[0].shape))
    states_at(model, [[3, 4, 5], [3, 4, 6, 7]])
    logprobs_and_states(model, [[3, 4, 5], [3, 4, 6, 7]])
    assert seen == [(1, 5), (1, 5)]
    assert headed == []


def test_log_probabilities_are_the_primitives_own_with_teachers_too() -> None:
    model, teacher = model_of("llama"), tiny("llama", seed=3)
    soft: list[Any] = list(soft_targets(teacher, FOREST, FLAGS))
    soft[1] = soft[4] = None
    for given_soft in (None, soft):
        expected = logprobs(model, FOREST, needed=FLAGS, soft=given_soft)
        got = logprobs_and_states(model, FOREST, needed=FLAGS, soft=given_soft)
        assert all(torch.equal(own, other) for (own, _), other in zip(got, expected, strict=True))
        rows = logprobs_and_states(model, FOREST, share=False, needed=FLAGS, soft=given_soft)
        assert value_error([own for own, _ in rows], expected) < 1e-5


def test_a_state_is_what_the_head_is_given_before_any_scaling() -> None:
    """Granite divides its logits by 4: head(state) / 4 gives the log-probabilities."""
    model = model_of("granite", False)
    found = logprobs_and_states(model, [FOREST[0]])[0]
    logits = found[1] @ model.lm_head.weight.t() / 4.0
    logps = torch.log_softmax(logits, dim=1).gather(1, torch.tensor(FOREST[0][1:])[:, None])[:, 0]
    assert relative_error(found[0], logps) < 1e-5


def test_a_model_without_a_decoder_is_refused_and_no_hook_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    states_at(model, FOREST)
    assert not model.model._forward_hooks
    with pytest.raises(ValueError, match="flags"):
        logprobs_and_states(model, FOREST, needed=[[True]] * len(FOREST))
    assert not model.model._forward_hooks
    monkeypatch.setattr(model, "get_decoder", lambda: model)
    with pytest.raises(ModelError, match="hidden states of LlamaForCausalLM cannot be read"):
        states_at(model, FOREST)


def test_states_keep_the_models_dtype() -> None:
    model = tiny("llama").bfloat16()
    assert states_at(model, FOREST)[0].dtype == torch.bfloat16
    logps, states = logprobs_and_states(model, FOREST)[0]
    assert (logps.dtype, states.dtype) == (torch.float32, torch.bfloat16)
