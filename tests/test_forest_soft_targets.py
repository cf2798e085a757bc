"""Soft targets: expected log-probabilities under a teacher, their gradients, and where they are mixed in."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from forests import SHAPES, Forest, forests
from hypothesis import given, settings
from tiny_models import plain_logprobs, relative_error, tiny, with_lora

from luthier.errors import ModelError
from luthier.forest import SoftTargets, logprobs, soft_targets
from luthier.forest import head as head_module
from luthier.forest.head import Head
from luthier.forest.soft_targets import dense_expected_logprobs, expected_logprobs

V, D, D_T = 37, 6, 9


def heads(*, bias: bool, scale: float, cap: float | None, trained: bool = False) -> tuple[Head, Head]:
    """The model's head, and a teacher's of another width without any of it."""
    dice = torch.Generator().manual_seed(1)
    weight = torch.randn(V, D, generator=dice, requires_grad=trained)
    shift = torch.randn(V, generator=dice, requires_grad=trained) if bias else None
    return Head(weight, shift, scale, cap), Head(torch.randn(V, D_T, generator=dice), None, 1.0, None)


def by_numpy(hidden: Any, head: Head, states: Any, teacher: Head) -> tuple[Any, Any]:
    """float64, from the formulas: s, and d s / d h = sum_v (q_v - p_v) dz_v / dh."""
    w = head.weight.detach().double().numpy()
    b = 0.0 if head.bias is None else head.bias.detach().double().numpy()
    z = (hidden.double().numpy() @ w.T + b) * head.scale
    slope = np.ones_like(z)
    if head.cap is not None:
        slope = 1 - np.tanh(z / head.cap) ** 2
        z = head.cap * np.tanh(z / head.cap)
    t = states.double().numpy() @ teacher.weight.double().numpy().T
    p, q = (np.exp(x - x.max(1, keepdims=True)) for x in (z, t))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return (q * np.log(p)).sum(1), ((q - p) * slope * head.scale) @ w


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("tile", [V * 100, 5 * 100, 100], ids=["one tile", "tiles", "token by token"])
@pytest.mark.parametrize(
    ("bias", "scale", "cap"), [(False, 1.0, None), (True, 0.25, None), (True, 3.0, 2.0), (False, 1.0, 1.0)]
)
def test_values_and_gradients_of_the_formulas(
    bias: bool, scale: float, cap: float | None, tile: int, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(head_module.TILE_NUMBERS, "cpu", tile)
    head, teacher = heads(bias=bias, scale=scale, cap=cap, trained=trained)
    dice = torch.Generator().manual_seed(2)
    hidden = torch.randn(100, D, generator=dice) * 2
    states = torch.randn(100, D_T, generator=dice) * 2
    expected, slope = by_numpy(hidden, head, states, teacher)
    hidden.requires_grad_()
    values = expected_logprobs(head, hidden, SoftTargets(states, teacher))
    weights = torch.linspace(-1, 2, 100)
    (values * weights).sum().backward()
    assert relative_error(values, torch.tensor(expected).float()) < 2e-6
    assert hidden.grad is not None
    assert relative_error(hidden.grad, torch.tensor(slope * weights.numpy()[:, None]).float()) < 1e-5
    if trained:
        assert head.weight.grad is not None
        again = head.weight.detach().clone().requires_grad_()
        dense = Head(again, None if head.bias is None else head.bias.detach(), scale, cap)
        plain = dense_expected_logprobs(dense.logits(hidden.detach()), SoftTargets(states, teacher))
        (plain * weights).sum().backward()
        assert again.grad is not None
        assert relative_error(head.weight.grad, again.grad) < 1e-5


def test_by_hand() -> None:
    """Two tokens: the teacher is sure at 3 to 1, the model at 1 to 1 and then at 1 to 3."""
    log3 = float(np.log(3.0))
    head = Head(torch.tensor([[1.0], [0.0]]), None, 1.0, None)
    states = torch.tensor([[log3], [log3]])
    values = expected_logprobs(head, torch.tensor([[0.0], [-log3]]), SoftTargets(states, head))
    assert values.tolist() == pytest.approx(
        [np.log(1 / 2), 3 / 4 * np.log(1 / 4) + 1 / 4 * np.log(3 / 4)], abs=1e-6
    )


def test_large_logits_do_not_overflow() -> None:
    head = Head(torch.tensor([[300.0], [-300.0], [0.0]]), None, 1.0, None)
    hidden = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    values = expected_logprobs(head, hidden, SoftTargets(torch.tensor([[1.0], [1.0]]), head))
    assert values.tolist() == pytest.approx([0.0, -600.0])
    values.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[:, 0].tolist() == pytest.approx([0.0, 600.0])


KINDS = ["llama", "gemma2", "granite", "gptj"]


def adapted(kind: str) -> tuple[Any, Any]:
    """A model with an adapter, and the same base as it was."""
    return with_lora(tiny(kind)), tiny(kind)


def mixed(sequences: Forest) -> list[list[bool]]:
    """Which predictions are asked for: most, and not the same in every sequence."""
    return [[(i + j) % 3 != 0 for j in range(len(row) - 1)] for i, row in enumerate(sequences)]


def check(kind: str, sequences: Forest) -> None:
    """Every other sequence has a teacher; against dense logits, one row each."""
    model, base = adapted(kind)
    flags = mixed(sequences)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taught = soft_targets(base, sequences, flags)
        soft = [target if i % 2 else None for i, target in enumerate(taught)]
        values = logprobs(model, sequences, needed=flags, soft=soft)
        sum((v * (1 + torch.arange(len(v)) % 3)).sum() for v in values)
    expected = []
    for i, row in enumerate(sequences):
        flag = torch.tensor(flags[i], dtype=torch.bool)
        if soft[i] is None:
            expected.append(plain_logprobs(model, row)[flag])
            continue
        ids = torch.tensor([row])
        ours, theirs = (m(input_ids=ids, use_cache=False).logits[0, :-1][flag] for m in (model, base))
        expected.append((torch.softmax(theirs, 1) * torch.log_softmax(ours, 1)).sum(1))
    if not any(len(v) for v in expected):
        return
    assert relative_error(torch.cat(values), torch.cat(expected)) < 1e-5
    grads = []
    for parts in (values, expected):
        model.zero_grad()
        weights = torch.linspace(1, 2, sum(map(len, parts)))
        (torch.cat(list(parts)) * weights).sum().backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        grads.append(torch.cat([g.flatten() for g in found]))
    assert (grads[0] - grads[1]).norm() <= 1e-4 * grads[1].norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape: str) -> None:
    check("llama", SHAPES[shape])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head_and_the_fallback(kind: str) -> None:
    check(kind, SHAPES["prefixes that are whole sequences"])


@settings(max_examples=15)
@given(sequences=forests(max_sequences=6, max_length=14))
def test_random_forests(sequences: Forest) -> None:
    check("llama", sequences)


def test_a_model_that_is_its_own_teacher_has_no_gradient() -> None:
    """The cross-entropy is the teacher's entropy, at its minimum."""
    base = tiny("llama")
    rows = SHAPES["star"]
    flags = [[True] * (len(row) - 1) for row in rows]
    taught = soft_targets(base, rows, flags)
    model = with_lora(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    values = logprobs(model, rows, needed=flags, soft=taught)
    (-torch.cat(values).sum()).backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float(grads.norm()) < 1e-5
    own = [(torch.softmax(z, 1) * torch.log_softmax(z, 1)).sum(1) for z in _logits(base, rows)]
    assert relative_error(torch.cat(values), torch.cat(own)) < 1e-5


def _logits(model: Any, rows: Forest) -> list[torch.Tensor]:
    return [model(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1].detach() for row in rows]


def test_a_head_that_is_trained_is_copied_first() -> None:
    """Full fine-tuning changes it: the teacher has to stay what it was."""
    model = tiny("llama")
    taught = soft_targets(model, [[3, 4, 5]], [[True, True]])
    before = taught[0].head.weight.clone()
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(1.0)
    assert torch.equal(taught[0].head.weight, before)
    assert not taught[0].head.weight.requires_grad and not taught[0].hidden.requires_grad


def test_a_frozen_head_is_not_copied() -> None:
    model = tiny("llama").requires_grad_(False)
    (taught,) = soft_targets(model, [[3, 4]], [[True]])
    assert taught.head.weight is model.get_output_embeddings().weight


def test_a_teacher_of_another_vocabulary_is_refused() -> None:
    head, teacher = heads(bias=False, scale=1.0, cap=None)
    small = Head(teacher.weight[:-1], None, 1.0, None)
    with pytest.raises(ValueError, match="different sizes: 36 and 37"):
        expected_logprobs(head, torch.zeros(2, D), SoftTargets(torch.zeros(2, D_T), small))


def test_as_many_distributions_as_predictions() -> None:
    head, teacher = heads(bias=False, scale=1.0, cap=None)
    with pytest.raises(ValueError, match="expected 2 distributions of the teacher, got 3"):
        expected_logprobs(head, torch.zeros(2, D), SoftTargets(torch.zeros(3, D_T), teacher))


def test_a_head_of_another_form_cannot_teach() -> None:
    model = with_lora(tiny("llama"), target_modules=["lm_head"])
    with pytest.raises(ModelError, match="cannot be kept"):
        soft_targets(model, [[3, 4]], [[True]])
