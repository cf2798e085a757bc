"""Supervised fine-tuning: numbers by hand, float64 NumPy, invariants, its items, plain Transformers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import relative_error, tiny, with_lora

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import DataError
from luthier.examples.example import Example, Message
from luthier.methods import SFT, Item, build_method
from luthier.train.outputs import outputs_of

METHOD = SFT()
Logps = list[list[torch.Tensor]]


def item_of(*rows: Sequence[float], start: int = 5) -> Item:
    """An item with a sequence for each row of weights; the first is of the first token."""
    sequences = tuple(
        TrainingSequence(tuple(range(start + n, start + n + len(row))), tuple(row))
        for n, row in enumerate(rows)
    )
    return Item("made up", sequences)


def made_up(seed: int, *, equal: bool = False, count: int = 6) -> tuple[list[Item], Logps]:
    """Items of one or two sequences, unequal weights of tokens, some 0; and float64 log-probabilities."""
    dice = random.Random(seed)
    items, logps = [], []
    for _ in range(count):
        rows, own = [], []
        for _ in range(dice.choice((1, 1, 2))):
            row = [0.0] * dice.randint(1, 4)
            row += [1.0 if equal else dice.choice((0.0, 0.25, 1.0, 3.0)) for _ in range(dice.randint(1, 8))]
            row.append(1.0 if equal else 0.5)  # a sequence has something to train
            rows.append(row)
            trained = sum(weight > 0 for weight in row[1:])
            values = [-4 * dice.random() - 0.01 for _ in range(trained)]
            own.append(torch.tensor(values, dtype=torch.float64, requires_grad=True))
        items.append(item_of(*rows))
        logps.append(own)
    return items, logps


def flat(logps: Logps) -> list[torch.Tensor]:
    return [values for own in logps for values in own]


def mean_loss(items: Sequence[Item], logps: Logps) -> torch.Tensor:
    """As training divides it."""
    return METHOD.loss(items, logps) / METHOD.total(items)


def oracle(items: Sequence[Item], logps: Logps) -> float:
    """The formula, from the weights as they stand in the sequences."""
    above, below = 0.0, 0.0
    for item, own in zip(items, logps, strict=True):
        for sequence, values in zip(item.sequences, own, strict=True):
            known = iter(values.detach().numpy())
            for weight in sequence.weights[1:]:
                if weight > 0:
                    above += weight * -np.log(np.exp(next(known)))
                    below += weight
    return float(above / below)


# --- the formula ----------------------------------------------------------------------------------


def test_by_hand() -> None:
    """Probabilities 1/2, 1/4 and 1/8: ln 2, 2 ln 2 and 3 ln 2."""
    items = [item_of((0, 1, 1)), item_of((0, 0, 1))]
    logps = [[torch.tensor([0.5, 0.25]).log()], [torch.tensor([0.125]).log()]]
    assert METHOD.total(items) == 3
    assert METHOD.loss(items, logps).item() == pytest.approx(6 * math.log(2))
    assert mean_loss(items, logps).item() == pytest.approx(2 * math.log(2))
    weighted = [item_of((0, 0.5, 2)), item_of((0, 0, 3))]
    assert METHOD.total(weighted) == 5.5
    assert METHOD.loss(weighted, logps).item() == pytest.approx((0.5 + 4 + 9) * math.log(2))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("equal", [True, False])
def test_the_loss_is_its_formula(equal: bool, seed: int) -> None:
    items, logps = made_up(seed, equal=equal)
    assert mean_loss(items, logps).item() == pytest.approx(oracle(items, logps), rel=1e-12)
    assert METHOD.total(items) == pytest.approx(sum(sum(s.weights[1:]) for i in items for s in i.sequences))


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_a_token_is_its_share_of_the_weight(seed: int) -> None:
    items, logps = made_up(seed)
    slopes = torch.autograd.grad(mean_loss(items, logps), flat(logps))
    weights = [weight for item in items for weight in item.weights]
    expected = -torch.tensor(weights, dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(torch.cat(slopes), expected, rtol=1e-12, atol=0)
    assert float(torch.cat(slopes).sum()) == pytest.approx(-1.0)


def test_gradients_are_those_of_the_numbers() -> None:
    items, logps = made_up(7)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        left = iter(values)
        return mean_loss(items, [[next(left) for _ in item.sequences] for item in items])

    assert torch.autograd.gradcheck(loss, flat(logps), eps=1e-6, atol=1e-9)


def test_the_lowest_loss_is_where_the_model_says_what_the_data_do() -> None:
    """Four answers of one token, of weights 1, 2, 3 and 2: p = 1/8, 2/8, 3/8, 2/8 has no gradient."""
    shares = torch.tensor([1.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    items = [item_of((0.0, weight)) for weight in shares.tolist()]
    for start in (shares.log(), torch.zeros(4, dtype=torch.float64)):
        logits = start.clone().requires_grad_()
        logps = torch.log_softmax(logits, 0)
        (slope,) = torch.autograd.grad(mean_loss(items, [[logps[k : k + 1]] for k in range(4)]), logits)
        torch.testing.assert_close(slope, logps.detach().exp() - shares / 8, rtol=1e-12, atol=1e-15)
    assert float(slope.abs().max()) > 0.1, "and elsewhere it has one"


# --- invariants -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[1] * 6, [2, 4], [5, 1], [1, 3, 2]])
def test_any_micro_batches_add_up_to_the_batch(cuts: list[int]) -> None:
    items, logps = made_up(1)
    total, whole = METHOD.total(items), mean_loss(items, logps)
    parts, at = [], 0
    for size in cuts:
        parts.append(METHOD.loss(items[at : at + size], logps[at : at + size]) / total)
        at += size
    summed = torch.stack(parts).sum()
    torch.testing.assert_close(summed, whole, rtol=1e-12, atol=0)
    for one, other in zip(
        torch.autograd.grad(summed, flat(logps)), torch.autograd.grad(whole, flat(logps)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_batches_put_together_and_turned_round() -> None:
    (first, ours), (second, theirs) = made_up(2), made_up(3)
    both, logps = [*first, *second], [*ours, *theirs]
    assert METHOD.total(both) == METHOD.total(first) + METHOD.total(second)
    whole, apart = METHOD.loss(both, logps), METHOD.loss(first, ours) + METHOD.loss(second, theirs)
    torch.testing.assert_close(whole, apart, rtol=1e-12, atol=0)
    torch.testing.assert_close(METHOD.loss(both[::-1], logps[::-1]), whole, rtol=1e-12, atol=0)
    # not the mean of the means: these are of unequal weight
    means = (mean_loss(first, ours) + mean_loss(second, theirs)) / 2
    assert abs((means - mean_loss(both, logps)).item()) > 1e-3


def test_a_token_counts_the_same_in_a_long_answer() -> None:
    """One answer of one token and one of nine: 10 tokens, not two answers."""
    items = [item_of((0, 1)), item_of((0, *[1] * 9))]
    logps = [[torch.tensor([-5.0])], [torch.tensor([-1.0] * 9)]]
    assert mean_loss(items, logps).item() == pytest.approx(14 / 10)


@given(st.floats(0.01, 100))
def test_only_the_proportions_of_weights_count(factor: float) -> None:
    items, logps = made_up(4)
    heavier = [item_of(*([factor * w for w in s.weights] for s in item.sequences)) for item in items]
    assert METHOD.total(heavier) == pytest.approx(factor * METHOD.total(items))
    assert METHOD.loss(heavier, logps).item() == pytest.approx(factor * METHOD.loss(items, logps).item())
    assert mean_loss(heavier, logps).item() == pytest.approx(mean_loss(items, logps).item())


def test_weight_two_is_to_be_there_twice() -> None:
    one, two = torch.tensor([-0.7]), torch.tensor([-2.2])
    heavy = mean_loss([item_of((0, 2)), item_of((0, 1))], [[one], [two]])
    twice = mean_loss([item_of((0, 1))] * 3, [[one], [one], [two]])
    assert heavy.item() == pytest.approx(twice.item()) == pytest.approx((1.4 + 2.2) / 3)


def test_an_example_of_weight_0_is_not_there() -> None:
    items, logps = made_up(5)
    nothing, untrained = item_of((0, 0, 0, 0)), torch.zeros(0, dtype=torch.float64)
    more, all_logps = [items[0], nothing, *items[1:]], [logps[0], [untrained], *logps[1:]]
    assert nothing.trained_tokens == 0 and METHOD.total([nothing]) == 0
    assert METHOD.total(more) == METHOD.total(items)
    assert torch.equal(METHOD.loss(more, all_logps), METHOD.loss(items, logps))


def test_the_first_token_is_predicted_from_nothing_and_never_trained() -> None:
    first, other = item_of((1, 1, 0.5)), item_of((0, 1, 0.5))
    logps = [[torch.tensor([-1.0, -3.0])]]
    assert first.flags == other.flags == [[True, True]]
    assert METHOD.total([first]) == METHOD.total([other]) == 1.5
    assert METHOD.loss([first], logps).item() == METHOD.loss([other], logps).item() == pytest.approx(2.5)


@given(st.floats(-3, 3))
def test_what_every_token_gains_the_mean_loses(gain: float) -> None:
    items, logps = made_up(6)
    better = [[values.detach() + gain for values in own] for own in logps]
    assert mean_loss(items, better).item() == pytest.approx(mean_loss(items, logps).item() - gain)


def test_the_ends_of_the_scale() -> None:
    items = [item_of((0, 1, 3))]
    assert mean_loss(items, [[torch.zeros(2)]]).item() == 0.0  # certain of it
    far = mean_loss(items, [[torch.tensor([-1e4, -1e4])]])
    assert far.dtype == torch.float32 and far.item() == pytest.approx(1e4)
    assert mean_loss(items, [[torch.tensor([-1.0, float("nan")])]]).isnan()  # training stops there


# --- through a model ------------------------------------------------------------------------------


def test_tokens_that_are_not_trained_have_no_gradient() -> None:
    """Of the logits: w (p - 1) of the answer's tokens over the summed weight, and exactly 0 elsewhere."""
    weights = (0.0, 0.0, 1.0, 0.0, 0.25, 3.0, 0.0)
    item = Item("i", (TrainingSequence((3, 9, 14, 15, 9, 2, 6), weights),))
    logits = torch.randn(7, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    (sequence,), (flags,) = item.sequences, item.flags
    own = torch.log_softmax(logits[:-1], 1)[range(6), list(sequence.ids[1:])]
    (slope,) = torch.autograd.grad(mean_loss([item], [[own[torch.tensor(flags)]]]), logits)
    expected = torch.softmax(logits.detach(), 1)
    for row, token in enumerate(sequence.ids[1:]):
        expected[row, token] -= 1
        expected[row] *= weights[row + 1] / 4.25
    expected[-1] = 0
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-15)
    untrained = [row for row in range(7) if row == 6 or weights[row + 1] == 0]
    assert untrained == [0, 2, 5, 6] and not slope[untrained].any()


def shared_items() -> list[Item]:
    """Answers of unequal lengths and weights to two prompts, which the forest computes once."""
    dice = random.Random(3)
    items = []
    for number in range(5):
        prompt = [3, 4, 5 + number % 2]
        answer = [dice.randrange(20, 60) for _ in range(dice.randint(1, 9))]
        weights = [dice.choice((0.5, 1.0, 2.0)) for _ in answer]
        sequence = TrainingSequence((*prompt, *answer), (0.0,) * 3 + tuple(weights))
        items.append(Item(f"s:{number}", (sequence,)))
    return items


def test_a_step_is_that_of_plain_transformers() -> None:
    model, items = with_lora(tiny("llama")), shared_items()
    trained = [p for p in model.parameters() if p.requires_grad]
    ours = METHOD.loss(items, outputs_of(model, METHOD, items)) / METHOD.total(items)
    above, below = torch.zeros(()), 0.0
    for item in items:
        (sequence,) = item.sequences
        weights = torch.tensor(sequence.weights[1:])
        logits = model(input_ids=torch.tensor([sequence.ids])).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(sequence.ids[1:]), reduction="none")
        above, below = above + (weights * nll).sum(), below + float(weights.sum())
    theirs = above / below
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for mine, reference in zip(
        torch.autograd.grad(ours, trained), torch.autograd.grad(theirs, trained), strict=True
    ):
        assert relative_error(mine, reference) < 2e-4


def test_one_item_at_a_time_is_all_at_once() -> None:
    """Neither the batch, nor its order, nor what is shared changes the loss or its gradient."""
    model, items = with_lora(tiny("llama")), shared_items()
    trained = [p for p in model.parameters() if p.requires_grad]
    total = METHOD.total(items)
    whole = METHOD.loss(items, outputs_of(model, METHOD, items)) / total
    slopes = torch.autograd.grad(whole, trained)
    parts = [METHOD.loss([item], outputs_of(model, METHOD, [item])) / total for item in items[::-1]]
    summed = torch.stack(parts).sum()
    assert summed.item() == pytest.approx(whole.item(), rel=1e-5)
    for one, other in zip(torch.autograd.grad(summed, trained), slopes, strict=True):
        assert relative_error(one, other) < 2e-4


# --- items ----------------------------------------------------------------------------------------


def example_of(*turns: Message, wanted: bool = True) -> Example:
    return Example("id", turns, "data.jsonl", 4, wanted=wanted)


def trained_text(item: Item, chat: ChatFormat) -> list[str]:
    return [
        str(chat.tokenizer.decode([i for i, w in zip(s.ids, s.weights, strict=True) if w]))
        for s in item.sequences
    ]


def test_the_assistants_tokens_and_their_terminator_are_trained(chat: ChatFormat) -> None:
    example = example_of(Message("user", "What is 6 times 7?"), Message("assistant", "It is 42."))
    (item,) = METHOD.items([example], chat, "Be brief.")
    assert item.where == "data.jsonl:4" and not item.wanted and not item.reference and item.rollout is None
    (text,) = trained_text(item, chat)
    assert text.rstrip("\n") == "It is 42.<|im_end|>"
    assert set(item.weights) == {1.0} and METHOD.total([item]) == item.trained_tokens
    (sequence,) = item.sequences
    assert "Be brief." in chat.tokenizer.decode(list(sequence.ids[: sequence.prompt_tokens]))


def test_every_turn_of_the_assistant_is_trained_but_for_those_of_weight_0(chat: ChatFormat) -> None:
    def turns(weight: int) -> Example:
        return example_of(
            Message("user", "A colour?"),
            Message("assistant", "Green.", weight=weight),
            Message("user", "Another?"),
            Message("assistant", "Blue."),
        )

    (both,), (last,) = (METHOD.items([turns(weight)], chat, None) for weight in (1, 0))
    assert [text.strip() for text in trained_text(both, chat)] == ["Green.<|im_end|>", "Blue.<|im_end|>"]
    assert [text.strip() for text in trained_text(last, chat)] == ["Blue.<|im_end|>"]
    assert METHOD.total([last]) < METHOD.total([both])


def test_what_should_not_be_said_is_not_imitated(chat: ChatFormat) -> None:
    good = example_of(Message("user", "q"), Message("assistant", "a"))
    bad = example_of(Message("user", "q"), Message("assistant", "a"), wanted=False)
    assert len(METHOD.items([good, good], chat, None)) == 2
    with pytest.raises(DataError, match="should not be given") as caught:
        METHOD.items([good, bad], chat, None)
    assert caught.value.where == "data.jsonl:4" and "kto" in str(caught.value.fix)


def test_what_a_recipe_gets() -> None:
    built = build_method("sft")
    items, logps = made_up(0)
    assert isinstance(built, SFT) and (built.name, built.pace, built.head) == ("sft", 1.0, None)
    assert not built.needs_reference and not built.learns_unwanted and built.labels == ()
    assert built.settle(items) is built and built.measure(items, logps) == {}
