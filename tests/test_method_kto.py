"""KTO: numbers by hand, the paper's formula in NumPy, the reference point, weights, items, a tiny model."""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from preferences import PROMPT, constant, gradients, mean_loss, plain
from tiny_training import Crash, crash_at, make_model, metrics, outcome, run, same, settings

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import DataError
from luthier.examples import Example, Message
from luthier.forest import logprobs, score
from luthier.methods import DPO, KTO, ORPO, SFT, Item, Method, SimPO
from luthier.methods.method import Mismatch
from luthier.train import loop

Logps = list[list[torch.Tensor]]
METHODS = [
    KTO(desirable_weight=1.0, undesirable_weight=1.0),
    KTO(beta=0.5, desirable_weight=2.0, undesirable_weight=0.75),
    KTO(beta=1.5, desirable_weight=0.9, undesirable_weight=1.1),
]
EVEN = METHODS[0]


def sequence(tokens: int, first: int = 0) -> TrainingSequence:
    """A prompt of three tokens and an answer of so many."""
    ids = tuple(range(first, first + PROMPT + tokens))
    return TrainingSequence(ids, (0.0,) * PROMPT + (1.0,) * tokens)


def judged(
    wanted: bool = True, tokens: int = 4, *, reference: float = 0.0, baseline: float | None = 0.0
) -> Item:
    """One answer to give or not to give."""
    return Item("answer", (sequence(tokens),), wanted=(wanted,), reference=(reference,), baseline=baseline)


def made_up(count: int = 8, *, seed: int = 0, baseline: float = 0.3) -> tuple[list[Item], Logps]:
    """Answers of unequal lengths, both kinds, and float64 log-probabilities of their tokens."""
    dice = random.Random(seed)
    items, logps = [], []
    for number in range(count):
        tokens = dice.randint(1, 9)
        items.append(
            judged(number % 3 != 1, tokens, reference=-3 * tokens * dice.random(), baseline=baseline)
        )
        own = [-3 * dice.random() - 0.01 for _ in range(tokens)]
        logps.append([torch.tensor(own, dtype=torch.float64, requires_grad=True)])
    return items, logps


def oracle(method: KTO, items: list[Item], logps: Logps) -> float:
    """The paper's value function and loss, answer by answer, in float64."""
    assert not isinstance(method.desirable_weight, str) and not isinstance(method.undesirable_weight, str)
    losses = []
    for item, (own,) in zip(items, logps, strict=True):
        assert item.baseline is not None
        r, z = own.detach().numpy().sum() - item.reference[0], max(0.0, item.baseline)
        if item.wanted[0]:
            value = method.desirable_weight / (1 + np.exp(-method.beta * (r - z)))
            losses.append(method.desirable_weight - value)
        else:
            value = method.undesirable_weight / (1 + np.exp(-method.beta * (z - r)))
            losses.append(method.undesirable_weight - value)
    return float(np.mean(losses))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_loss_is_its_formula(method: KTO) -> None:
    for seed in range(5):
        items, logps = made_up(9, seed=seed, baseline=0.4 * seed)
        assert mean_loss(method, items, logps).item() == pytest.approx(
            oracle(method, items, logps), rel=1e-12
        )


def test_by_hand() -> None:
    """s(log 3) = 3/4."""
    up = [[torch.tensor([math.log(3) - 5.0]).double()]]
    for wanted, loss in ((True, 0.25), (False, 0.75)):
        method = KTO(beta=1.0, desirable_weight=1.0, undesirable_weight=1.0)
        item = judged(wanted, 1, reference=-5.0)
        assert method.loss([item], up).item() == pytest.approx(loss)
        assert replace(method, beta=2.0).loss([item], up).item() == pytest.approx(
            0.1 if wanted else 0.9  # s(2 log 3) = 9/10
        )
        other = judged(wanted, 1, reference=-5.0, baseline=2 * math.log(3))
        assert method.loss([other], up).item() == pytest.approx(1 - loss)  # now r - z = - log 3
        heavy = KTO(beta=1.0, desirable_weight=3.0, undesirable_weight=0.5)
        assert heavy.loss([item], up).item() == pytest.approx(loss * (3.0 if wanted else 0.5))


def test_at_the_start_an_answer_costs_half_its_weight() -> None:
    for wanted, weight, slope in ((True, 2.0, -1), (False, 0.5, 1)):
        method = KTO(beta=0.4, desirable_weight=2.0, undesirable_weight=0.5)
        item = judged(wanted, 5, reference=-3.5)
        logps = [constant(item, -0.7)]
        loss = method.loss([item], logps)
        assert loss.item() == pytest.approx(weight / 2)
        (own,) = gradients(logps, loss)
        torch.testing.assert_close(own, torch.full_like(own, slope * weight * 0.4 / 4))  # s' (0) = 1/4


def test_directions() -> None:
    for method in METHODS:
        items, logps = made_up(12, seed=3)
        method.loss(items, logps).backward()
        for item, (own,) in zip(items, logps, strict=True):
            assert own.grad is not None
            assert bool((own.grad < 0).all()) is item.wanted[0]
            assert bool((own.grad > 0).all()) is not item.wanted[0]


def test_the_reference_point_parts_gain_from_loss() -> None:
    """A higher z makes a wanted answer cost more, an unwanted one less; at r = z either costs half."""
    logps = [[torch.tensor([-1.0]).double()]]
    for wanted, sign in ((True, 1), (False, -1)):
        costs = [EVEN.loss([judged(wanted, 1, baseline=z)], logps).item() for z in (0.0, 1.0, 2.0)]
        assert sign * costs[0] < sign * costs[1] < sign * costs[2]
        there = judged(wanted, 1, reference=-3.0, baseline=2.0)
        assert EVEN.loss([there], logps).item() == pytest.approx(0.5)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_gradient_is_that_of_the_loss(method: KTO) -> None:
    items, logps = made_up(4, seed=5)
    items.insert(1, plain())
    logps.insert(1, constant(items[1], -0.7))
    flat = [own for sequences in logps for own in sequences]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return method.loss(items, [[own] for own in values])

    assert torch.autograd.gradcheck(loss, flat, eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_any_micro_batches_in_any_order_are_the_batch(method: KTO) -> None:
    items, logps = made_up(6)
    items.append(plain(9))
    logps.append(constant(items[-1], -0.4))
    total = method.total(items)
    whole = method.loss(items, logps) / total
    for cuts in ([1] * 7, [3, 4], [6, 1], [1, 5, 1]):
        ends = np.cumsum(cuts)
        parts = [
            method.loss(items[end - size : end], logps[end - size : end]) / total
            for size, end in zip(cuts, ends, strict=True)
        ]
        summed = torch.stack(parts).sum()
        torch.testing.assert_close(summed, whole, rtol=1e-12, atol=0)
        for one, other in zip(gradients(logps, whole), gradients(logps, summed), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    order = [4, 0, 6, 2, 5, 1, 3]
    shuffled = method.loss([items[i] for i in order], [logps[i] for i in order]) / total
    torch.testing.assert_close(shuffled, whole, rtol=1e-12, atol=0)


def test_what_is_only_imitated_counts_as_one_answer_with_its_mean() -> None:
    items, logps = made_up(2)
    alone = EVEN.loss(items, logps)
    for tokens in (1, 8):
        more = plain(tokens)
        assert EVEN.total([*items, more]) == 3
        both = EVEN.loss([items[0], more, items[1]], [logps[0], constant(more, -0.4), logps[1]])
        torch.testing.assert_close(both - alone, torch.tensor(0.4).double())
    assert EVEN.loss([plain()], [constant(plain(), -0.25)]).item() == pytest.approx(0.25)


def test_far_out_it_is_finite_and_within_its_weight() -> None:
    for wanted in (True, False):
        for gain in (-1e4, 1e4):
            item = judged(wanted, 1)
            logps = [[torch.tensor([gain], requires_grad=True)]]
            loss = METHODS[1].loss([item], logps)
            best = wanted == (gain > 0)
            assert loss.item() == pytest.approx(0.0 if best else (2.0 if wanted else 0.75))
            assert all(bool(own.isfinite().all()) for own in gradients(logps, loss))
            assert loss.dtype == torch.float32


# --- the reference point ------------------------------------------------------------------------


def scoring(answers: Sequence[Sequence[float]], seen: list[Any] | None = None) -> Any:
    """A stand-in for `forest.score`, which gives these and keeps what it was asked for."""

    def stand_in(
        sequences: Sequence[Sequence[int]], *, needed: Sequence[Sequence[bool]]
    ) -> list[torch.Tensor]:
        if seen is not None:
            seen.append((sequences, needed))
        assert len(sequences) == len(needed) == len(answers)
        return [torch.tensor(own, requires_grad=True) for own in answers]

    return stand_in


def mismatched(references: Sequence[float]) -> list[Item]:
    return [
        replace(judged(number % 2 == 0), mismatch=Mismatch(sequence(2, first=number), reference))
        for number, reference in enumerate(references)
    ]


@pytest.mark.parametrize(
    ("logps", "point"),
    [
        ([[-1.0, -1.0], [-2.0, -3.0]], 1.0),  # log-ratios 3 and -1: their mean, not that of what is positive
        ([[-4.0, -4.0], [-1.0, -2.0]], 0.0),  # -3 and 1: never below 0
        ([[-2.5, -2.5], [-2.0, -2.0]], 0.0),
        ([[-2.0, -2.0], [-1.0, -0.5]], 1.75),
    ],
)
def test_the_reference_point_is_the_mean_log_ratio_of_mismatches(
    logps: list[list[float]], point: float
) -> None:
    items = mismatched([-5.0, -4.0])
    prepared = EVEN.prepare(items, scoring(logps))
    assert [item.baseline for item in prepared] == pytest.approx([point, point])
    assert all(type(item.baseline) is float for item in prepared)  # nothing that a gradient could go through
    assert [replace(item, baseline=0.0) for item in prepared] == items
    backwards = EVEN.prepare(items[::-1], scoring(logps[::-1]))
    assert [item.baseline for item in backwards] == [item.baseline for item in prepared]


def test_the_model_is_asked_for_the_answer_after_the_other_prompt_and_nothing_else() -> None:
    seen: list[Any] = []
    items = mismatched([-1.0, -2.0])
    EVEN.prepare(items, scoring([[-1.0, -1.0]] * 2, seen))
    ((asked, needed),) = seen
    assert [tuple(ids) for ids in asked] == [tuple(range(5)), tuple(range(1, 6))]
    assert needed == [[False, False, True, True]] * 2  # the prompt's own tokens say nothing of the answer


def test_items_without_a_mismatch_take_the_point_of_the_others() -> None:
    (item,) = mismatched([-5.0])
    lonely, replay = judged(False), plain()
    first, second, third = EVEN.prepare([item, lonely, replay], scoring([[-1.0, -1.0]]))
    assert (first.baseline, second.baseline) == (3.0, 3.0)
    assert third is replay
    alone = EVEN.prepare([replace(lonely, baseline=7.0), replay], scoring([[]]))
    assert alone[0].baseline == 0.0


def test_other_methods_prepare_nothing() -> None:
    items = mismatched([-5.0])
    for method in (SFT(), DPO(), ORPO(), SimPO()):
        assert method.prepare(items, scoring([])) == items
        assert not method.learns_unwanted and method.settle(items) is method
    assert EVEN.learns_unwanted and EVEN.needs_reference


def test_a_model_that_gives_no_numbers_is_not_taken_for_the_reference() -> None:
    (item,) = EVEN.prepare(mismatched([-5.0]), scoring([[math.nan, -1.0]]))
    assert item.baseline is not None and math.isnan(item.baseline)
    assert math.isnan(EVEN.loss([item], [constant(item, -0.5)]).item())


def test_nothing_that_is_missing_is_taken_for_0() -> None:
    item = judged()
    logps = [constant(item, -1.0)]
    for broken in (replace(item, reference=()), replace(item, baseline=None)):
        with pytest.raises(ValueError, match="without"):
            EVEN.loss([broken], logps)
    with pytest.raises(ValueError, match="mismatch without"):
        EVEN.prepare([replace(item, mismatch=Mismatch(sequence(2)))], scoring([[-1.0, -1.0]]))
    for method in (KTO(), KTO(desirable_weight=1.0), KTO(undesirable_weight=1.0)):
        with pytest.raises(ValueError, match="settle"):
            method.loss([item], logps)


# --- weights ------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40))
def test_automatic_weights_let_both_kinds_weigh_the_same(wanted: int, unwanted: int) -> None:
    items = [*[judged()] * wanted, plain(), *[judged(False)] * unwanted]
    settled = KTO(beta=0.7).settle(items)
    good, bad = settled.desirable_weight, settled.undesirable_weight
    assert not isinstance(good, str) and not isinstance(bad, str)
    assert good * wanted == pytest.approx(bad * unwanted)
    assert good * wanted + bad * unwanted == pytest.approx(wanted + unwanted)
    assert settled.beta == 0.7
    follows = KTO(undesirable_weight=2.0).settle(items)
    assert follows.undesirable_weight == 2.0
    assert follows.desirable_weight == pytest.approx(2.0 * unwanted / wanted)
    follows = KTO(desirable_weight=0.5).settle(items)
    assert follows == KTO(0.1, 0.5, pytest.approx(0.5 * wanted / unwanted))
    assert METHODS[1].settle(items) == METHODS[1]


def test_weights_by_hand() -> None:
    one_in_four = [judged(), judged(False), judged(False), judged(False)]
    assert KTO().settle(one_in_four) == KTO(0.1, 2.0, pytest.approx(2 / 3))
    assert KTO().settle([judged(), judged(False)]) == KTO(0.1, 1.0, 1.0)


@pytest.mark.parametrize(("wanted", "says"), [(True, "not to give"), (False, "one to give")])
def test_one_kind_alone_is_refused(wanted: bool, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        METHODS[1].settle([judged(wanted), plain()])
    assert caught.value.where == "answer" and "method: sft" in str(caught.value.fix)
    with pytest.raises(DataError):
        KTO().settle([])


# --- items --------------------------------------------------------------------------------------


def example(asked: str, answer: str, *rejected: str, wanted: bool = True, line: int = 1) -> Example:
    turns = (Message("user", asked), Message("assistant", answer))
    return Example(f"{asked}/{answer}", turns, "data.jsonl", line, rejected=rejected, wanted=wanted)


def texts(chat: ChatFormat, items: Sequence[Item]) -> list[tuple[str, str, bool, str | None]]:
    """Prompt, answer, whether it is wanted, and the mismatched answer; the prompts are the same."""

    def parts(own: TrainingSequence) -> tuple[str, str]:
        cut = own.prompt_tokens
        return chat.tokenizer.decode(own.ids[:cut]), chat.decode(own.ids[cut:])

    rows = []
    for item in items:
        (own,), (wanted,) = item.sequences, item.wanted
        prompt, answer = parts(own)
        asked = prompt.split("\n")[-3].removesuffix("<|im_end|>")
        other = None if item.mismatch is None else parts(item.mismatch.sequence)
        assert other is None or other[0] == prompt
        rows.append((asked, answer, wanted, None if other is None else other[1]))
    return rows


def test_a_pair_gives_one_answer_of_either_kind(chat: ChatFormat) -> None:
    pairs = [example("one", "a", "b"), example("two", "c", "d", "e"), example("three", "f", "g")]
    items = KTO().items(pairs, chat, None)
    assert texts(chat, items) == [
        ("one", "a", True, "f"),
        ("one", "b", False, "g"),
        ("two", "c", True, "a"),
        ("two", "d", False, "b"),
        ("two", "e", False, "a"),
        ("three", "f", True, "c"),
        ("three", "g", False, "d"),
    ]
    assert all(item.baseline == 0.0 and item.reference == () for item in items)


def test_judged_answers_are_taken_one_by_one(chat: ChatFormat) -> None:
    rows = [
        example("one", "a"),
        example("two", "b", wanted=False, line=7),
        example("one", "c", wanted=False),
        example("three", "d", "e", wanted=False),
    ]
    items = KTO().items(rows, chat, "Be kind.")
    assert texts(chat, items) == [
        ("one", "a", True, "d"),
        ("two", "b", False, "a"),
        ("one", "c", False, "e"),
        ("three", "d", False, "b"),
        ("three", "e", False, "b"),
    ]
    assert items[1].where == "data.jsonl:7"
    assert "Be kind." in chat.tokenizer.decode(items[0].sequences[0].ids)


def test_one_request_has_no_mismatch(chat: ChatFormat) -> None:
    items = KTO().items([example("one", "a", "b"), example("one", "c")], chat, None)
    assert texts(chat, items) == [
        ("one", "a", True, None),
        ("one", "b", False, None),
        ("one", "c", True, None),
    ]


def test_single_answers_are_each_mismatched_once(chat: ChatFormat) -> None:
    rows = [example(f"request {n}", f"answer {n}", wanted=n % 2 == 0) for n in range(7)]
    found = texts(chat, KTO().items(rows, chat, None))
    assert Counter(row[3] for row in found) == Counter(row[1] for row in found)
    assert all(row[1] != row[3] for row in found)


@pytest.mark.parametrize("method", [SFT(), DPO(), ORPO(), SimPO()], ids=lambda method: method.name)
def test_no_other_method_takes_what_should_not_be_given(method: Method, chat: ChatFormat) -> None:
    rows = [example("one", "a", "b"), example("two", "c", "d", wanted=False, line=3)]
    assert len(method.items(rows[:1], chat, None)) == 1
    with pytest.raises(DataError, match="should not be given") as caught:
        method.items(rows, chat, None)
    assert caught.value.where == "data.jsonl:3" and "method: kto" in str(caught.value.fix)


# --- on a model ---------------------------------------------------------------------------------


@pytest.fixture
def learner() -> tuple[Any, list[Item]]:
    """A tiny Llama with an untrained adapter, and answers to six prompts with their references."""
    model = make_model()
    return model, items_for(model, 6)


def items_for(model: Any, count: int, *, seed: int = 1) -> list[Item]:
    """Random answers to random prompts; the model, not yet trained, is the reference."""
    dice = random.Random(seed)
    prompts = [[dice.randint(3, 90) for _ in range(dice.randint(3, 6))] for _ in range(count)]
    answers = [[dice.randint(3, 90) for _ in range(dice.randint(2, 7))] for _ in range(count)]

    def after(prompt: list[int], answer: list[int]) -> TrainingSequence:
        return TrainingSequence((*prompt, *answer), (0.0,) * len(prompt) + (1.0,) * len(answer))

    return [
        with_references(
            model,
            Item(
                f"{n}",
                (after(prompt, answers[n]),),
                wanted=(n % 2 == 0,),
                mismatch=Mismatch(after(prompt, answers[n - 1])),
                baseline=0.0,
            ),
        )
        for n, prompt in enumerate(prompts)
    ]


def with_references(model: Any, item: Item) -> Item:
    assert item.mismatch is not None
    (own,) = score(model, [item.sequences[0].ids], needed=item.flags)
    (other,) = score(model, [item.mismatch.sequence.ids], needed=[item.mismatch.flags])
    mismatch = replace(item.mismatch, reference=float(other.double().sum()))
    return replace(item, reference=(float(own.double().sum()),), mismatch=mismatch)


def lowered(item: Item, by: float) -> Item:
    """As if the reference had given the mismatched answer less: the reference point is above 0."""
    assert item.mismatch is not None and item.mismatch.reference is not None
    return replace(item, mismatch=replace(item.mismatch, reference=item.mismatch.reference - by))


def logps_of(model: Any, items: Sequence[Item]) -> Logps:
    ids = [list(item.sequences[0].ids) for item in items]
    return [[own] for own in logprobs(model, ids, needed=[item.flags[0] for item in items])]


def step(model: Any, method: KTO, items: Sequence[Item], rate: float) -> tuple[float, float]:
    """Loss and reference point before one step down the gradient."""
    prepared = method.prepare(items, partial(score, model))
    loss = method.loss(prepared, logps_of(model, prepared)) / method.total(prepared)
    loss.backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.data -= rate * parameter.grad
            parameter.grad = None
    assert prepared[0].baseline is not None
    return loss.item(), prepared[0].baseline


def test_training_moves_the_answers_apart(learner: tuple[Any, list[Item]]) -> None:
    model, items = learner
    method = KTO(beta=0.2).settle(items)
    seen = [step(model, method, items, 0.5) for _ in range(25)]
    losses, points = zip(*seen, strict=True)
    assert losses[0] == pytest.approx(0.5, abs=1e-5)
    assert points[0] == pytest.approx(0.0, abs=1e-4)
    assert losses[-1] < 0.4
    gains = [
        own.double().sum().item() - item.reference[0]
        for item, (own,) in zip(items, logps_of(model, items), strict=True)
    ]
    assert min(gains[::2]) > 1.0 and max(gains[1::2]) < -1.0
    assert min(points) >= 0.0


def test_the_reference_point_of_a_moved_model_has_no_gradient(learner: tuple[Any, list[Item]]) -> None:
    """Against the paper's formula written out with two forwards, where the second is held fixed."""
    model, items = learner
    items = [lowered(item, 30.0) for item in items]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(7))
    method = KTO(beta=0.3, desirable_weight=1.3, undesirable_weight=0.6)
    prepared = method.prepare(items, partial(score, model))

    def slopes(loss: torch.Tensor) -> list[torch.Tensor]:
        trained = [p for p in model.parameters() if p.requires_grad]
        return list(torch.autograd.grad(loss, trained))

    def written_out(fixed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        ids = [list(item.mismatch.sequence.ids) for item in items if item.mismatch is not None]
        flags = [item.mismatch.flags for item in items if item.mismatch is not None]
        known = [item.mismatch.reference for item in items if item.mismatch is not None]
        others = logprobs(model, ids, share=False, needed=flags)
        z = torch.stack([own.sum() - before for own, before in zip(others, known, strict=True)]).mean()
        z = fixed(z).clamp(min=0)
        loss = torch.zeros(())
        for item, (own,) in zip(items, logps_of(model, items), strict=True):
            x = 0.3 * (own.sum() - item.reference[0] - z)
            loss = loss + (1.3 * (1 - torch.sigmoid(x)) if item.wanted[0] else 0.6 * torch.sigmoid(x))
        return loss

    ours = method.loss(prepared, logps_of(model, prepared))
    paper = written_out(lambda z: z.detach())
    assert prepared[0].baseline is not None and prepared[0].baseline > 0.1
    assert ours.item() == pytest.approx(paper.item(), rel=1e-5)
    expected = slopes(paper)
    for one, other in zip(slopes(ours), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    attached = slopes(written_out(lambda z: z))
    assert any(
        not torch.allclose(one, other, rtol=1e-2, atol=1e-4)
        for one, other in zip(expected, attached, strict=True)
    )


def test_the_loop_prepares_every_step_and_a_stopped_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    method = KTO(beta=0.5, desirable_weight=1.0, undesirable_weight=1.0)

    def go(name: str, *, mismatches: bool = True, **changes: Any) -> Any:
        model = make_model("lora", num_hidden_layers=1)
        items, held = items_for(model, 10), items_for(model, 4, seed=9)
        items = [replace(lowered(item, 4.0), wanted=(True,)) for item in items]
        if not mismatches:
            items = [replace(item, mismatch=None) for item in items]
        plan = settings(epochs=2, batch_tokens=40)
        given = {"method": method, "items": items, "validation": held, "settings": plan}
        return outcome(tmp_path / name, run(tmp_path / name, model=model, **given, **changes))

    def losses(name: str) -> list[float]:
        return [row["loss"] for row in metrics(tmp_path / name) if "loss" in row]

    whole = go("whole")
    with pytest.raises(Crash):
        go("cut", show=crash_at(3))
    assert same(go("cut"), whole)
    go("small", micro_tokens=8)
    assert losses("small") == pytest.approx(losses("whole"), abs=1e-4)
    go("without", mismatches=False)
    assert losses("whole")[0] == pytest.approx(1 / (1 + math.exp(-0.5 * 4)), abs=1e-4)  # r = 0, z = 4
    assert losses("without")[0] == pytest.approx(0.5, abs=1e-4)
