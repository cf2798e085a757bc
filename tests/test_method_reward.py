"""Reward models: numbers by hand, the papers' formulas in NumPy, invariants, TRL's trainer, a training."""

from __future__ import annotations

import itertools
import math
import os
import random
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_tokenizers import byte_level
from peft import PeftModel
from preferences import gradients, mean_loss
from tiny_models import relative_error, tiny
from tiny_run import CHATML
from tiny_training import Crash, crash_at, outcome, run, same, settings, trainable
from transformers import AutoModelForSequenceClassification

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import DataError
from luthier.examples.example import Example, Message
from luthier.methods import SFT, Item, Reward, build_method
from luthier.methods.method import read_at_end
from luthier.methods.reward import ranking_loss
from luthier.models import LoadedModel, Model, attach_adapter, save_adapter
from luthier.models.heads import attach_head
from luthier.recipe import Adapter
from luthier.recipe.method_options import RewardOptions
from luthier.train import loop
from luthier.train.batches import epoch_batches
from luthier.train.outputs import outputs_of, score_sequences
from luthier.train.schedule import rate_at
from luthier.train.step import MAX_GRAD_NORM, Told, backward_of

VARIANTS = [Reward(), Reward(margin="margin"), Reward(center_coefficient=0.3)]
Rewards = list[list[torch.Tensor]]


def ranked(count: int, margins: tuple[float, ...] = ()) -> Item:
    """An item of so many answers, the best first."""
    rows = tuple(TrainingSequence((3, 4 + i), (0.0, 1.0)) for i in range(count))
    return Item("ranked", rows, wanted=(True, *(False,) * (count - 1)), margins=margins)


def rewards(*values: float) -> list[torch.Tensor]:
    """Of one item's answers."""
    return [torch.tensor([value], dtype=torch.float64).requires_grad_() for value in values]


def made_up(count: int = 7, *, seed: int = 0, margins: bool = True) -> tuple[list[Item], Rewards]:
    """Lists of two to five answers with float64 rewards; margins of some."""
    dice = random.Random(seed)
    items, outputs = [], []
    for i in range(count):
        n = dice.randint(2, 5)
        known = tuple(itertools.accumulate([0.0, *(dice.random() for _ in range(n - 1))]))
        items.append(ranked(n, known if margins and i % 2 else ()))
        outputs.append(rewards(*(dice.gauss(0, 2) for _ in range(n))))
    return items, outputs


def oracle(items: Sequence[Item], outputs: Rewards, *, center: float = 0.0) -> float:
    """InstructGPT's equation 1 with Llama 2's margins, list by list, in float64."""
    losses = []
    for item, own in zip(items, outputs, strict=True):
        r = np.array([value.item() for value in own], dtype=np.float64)
        m = np.array(item.margins or np.zeros(len(r)), dtype=np.float64)
        pairs = []
        for w, l in itertools.combinations(range(len(r)), 2):  # noqa: E741 the papers' letter
            sigma = 1 / (1 + np.exp(-(r[w] - r[l] - (m[l] - m[w]))))
            pairs.append(-np.log(sigma) + center * (r[w] + r[l]) ** 2)
        losses.append(sum(pairs) / math.comb(len(r), 2))
    return float(np.mean(losses))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_its_formula(seed: int) -> None:
    items, outputs = made_up(9, seed=seed)
    for center in (0.0, 0.01, 1.5):
        method = Reward(center_coefficient=center)
        assert mean_loss(method, items, outputs).item() == pytest.approx(
            oracle(items, outputs, center=center), rel=1e-12
        )


def test_by_hand() -> None:
    pair = [ranked(2)]
    assert Reward().loss(pair, [rewards(1.0, -2.0)]).item() == pytest.approx(math.log1p(math.exp(-3)))
    assert Reward().loss(pair, [rewards(0.0, 1.0)]).item() == pytest.approx(math.log1p(math.e))
    margin = [ranked(2, (0.0, 1.0))]
    assert Reward().loss(margin, [rewards(3.0, 2.0)]).item() == pytest.approx(math.log(2))
    assert Reward().loss(margin, [rewards(4.0, 2.0)]).item() == pytest.approx(math.log1p(math.exp(-1)))
    centred = Reward(center_coefficient=0.5)
    assert centred.loss(pair, [rewards(2.0, 2.0)]).item() == pytest.approx(math.log(2) + 8)
    assert centred.loss(pair, [rewards(2.0, -2.0)]).item() == pytest.approx(math.log1p(math.exp(-4)))
    # three answers: gaps 1, 1 and 2
    expected = (2 * math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 3
    assert Reward().loss([ranked(3)], [rewards(2.0, 1.0, 0.0)]).item() == pytest.approx(expected)
    # margins 1, 3 and 3 - 1 = 2: gaps 0, -1 and -1
    expected = (math.log(2) + 2 * math.log1p(math.e)) / 3
    assert Reward().loss([ranked(3, (0.0, 1.0, 3.0))], [rewards(2.0, 1.0, 0.0)]).item() == pytest.approx(
        expected
    )


def test_equal_rewards_cost_log_2() -> None:
    for count in (2, 3, 6):
        own = rewards(*[1.7] * count)
        assert Reward().loss([ranked(count)], [own]).item() == pytest.approx(0.69314718, abs=1e-8)
        slopes = gradients([own], Reward().loss([ranked(count)], [own]))
        # each pair pushes by 1/2 of its share; the best is better in all of its pairs
        assert slopes[0].item() == pytest.approx(-0.5 * (count - 1) / math.comb(count, 2))
        assert slopes[-1].item() == pytest.approx(0.5 * (count - 1) / math.comb(count, 2))


def test_swapping_turns_the_margin() -> None:
    for first, second in ((0.3, 1.1), (-2.0, 4.0), (5.0, 5.0)):
        ahead = Reward().loss([ranked(2)], [rewards(first, second)])
        behind = Reward().loss([ranked(2)], [rewards(second, first)])
        assert (behind - ahead).item() == pytest.approx(first - second)


def test_what_all_answers_gain_changes_nothing_unless_rewards_are_centred() -> None:
    items, outputs = made_up(6)
    raised = [[value + shift for value in own] for own, shift in zip(outputs, range(6), strict=True)]
    torch.testing.assert_close(Reward().loss(items, raised), Reward().loss(items, outputs))
    centred = Reward(center_coefficient=0.1)
    assert centred.loss(items, raised).item() != pytest.approx(centred.loss(items, outputs).item())


def test_centring_pulls_towards_zero() -> None:
    for level in (-3.0, 3.0):
        own = rewards(level, level)
        slopes = gradients([own], Reward(center_coefficient=0.1).loss([ranked(2)], [own]))
        assert math.copysign(1, sum(slope.item() for slope in slopes)) == math.copysign(1, level)


def test_margins_ask_for_more() -> None:
    base = Reward().loss([ranked(2)], [rewards(1.0, 0.0)]).item()
    asked = [Reward().loss([ranked(2, (0.0, m))], [rewards(1.0, 0.0)]).item() for m in (0.0, 0.5, 1.0, 3.0)]
    assert asked[0] == pytest.approx(base)
    assert asked == sorted(asked) and asked[-1] > asked[0]


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_the_gradient_is_that_of_the_loss(method: Reward) -> None:
    items, outputs = made_up(4, seed=3)
    flat = [value for own in outputs for value in own]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        left = iter(values)
        return method.loss(items, [[next(left) for _ in item.sequences] for item in items])

    assert torch.autograd.gradcheck(loss, flat, eps=1e-6, atol=1e-7)


def test_better_answers_are_pushed_up_and_worse_ones_down() -> None:
    items, outputs = made_up(12, seed=4)
    slopes = iter(gradients(outputs, Reward().loss(items, outputs)))
    for own in outputs:
        mine = [next(slopes).item() for _ in own]
        assert mine[0] < 0 < mine[-1]
        assert sum(mine) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_micro_batches_and_order_do_not_matter(method: Reward) -> None:
    items, outputs = made_up(8)
    total = method.total(items)
    assert total == 8, "a prompt counts once, however many answers it has"
    whole = method.loss(items, outputs) / total
    for cuts in ([1] * 8, [3, 5], [7, 1], [1, 6, 1]):
        parts, at = [], 0
        for size in cuts:
            parts.append(method.loss(items[at : at + size], outputs[at : at + size]) / total)
            at += size
        torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)
        for one, other in zip(gradients(outputs, whole), gradients(outputs, sum(parts)), strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    order = [4, 0, 6, 2, 7, 5, 1, 3]
    shuffled = method.loss([items[i] for i in order], [outputs[i] for i in order]) / total
    torch.testing.assert_close(shuffled, whole, rtol=1e-12, atol=0)


def test_rewards_far_out_are_finite() -> None:
    for gap in (-1e4, 1e4):
        own = [value.float().detach().requires_grad_() for value in rewards(gap, 0.0)]
        loss = Reward().loss([ranked(2)], [own])
        assert math.isfinite(loss.item()) and all(bool(slope.isfinite()) for slope in gradients([own], loss))


def test_one_answer_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="nothing to imitate"):
        Reward().loss([ranked(2), ranked(1)], [rewards(1.0, 2.0), rewards(1.0)])
    assert ranking_loss(torch.tensor([1.0, 1.0])).item() == pytest.approx(math.log(2))


# items --------------------------------------------------------------------------------------------


def example(*rejected: str, **fields: Any) -> Example:
    asked = (Message("user", "what is it?"), Message("assistant", "It is 42."))
    return Example("e", asked, "data.jsonl", 3, rejected=rejected, fields=fields)


def test_all_answers_of_a_prompt_are_one_item(chat: ChatFormat) -> None:
    (item,) = Reward().items([example("the fox", "a dog?")], chat, "Be brief.")
    request = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is it?"}]
    answers = ["It is 42.", "the fox", "a dog?"]
    assert [s.ids for s in item.sequences] == [chat.sequence(request, a).ids for a in answers]
    assert item.wanted == (True, False, False)
    assert item.margins == ()
    assert all(sequence.ids[-1] == chat.terminator for sequence in item.sequences)
    assert item.trained_tokens == 3, "the loss is of the last token of each answer"
    assert [flags.index(True) for flags in item.flags] == [len(s.ids) - 2 for s in item.sequences]


def test_margins_are_read(chat: ChatFormat) -> None:
    method = Reward(margin="gap")
    read = lambda *rejected, **fields: method.items([example(*rejected, **fields)], chat, None)[0].margins  # noqa: E731
    assert read("no", gap=0.5) == (0.0, 0.5)
    assert read("no", gap="2") == (0.0, 2.0)
    assert read("no", "never", gap=[1, 1.5]) == (0.0, 1.0, 1.5)
    assert Reward().items([example("no", gap=0.5)], chat, None)[0].margins == ()


@pytest.mark.parametrize("gap", [None, -1, "much", True, math.inf, [1, 2], [], {"a": 1}])
def test_a_margin_that_is_none_is_refused(gap: Any, chat: ChatFormat) -> None:
    with pytest.raises(DataError, match=r"the margin in 'gap' is .* expected a number from 0 up") as caught:
        Reward(margin="gap").items([example("no", gap=gap)], chat, None)
    assert caught.value.where == "data.jsonl:3"


def test_margins_of_a_list_never_fall(chat: ChatFormat) -> None:
    for gap in (1.0, [2, 1], [1], [1, 2, 3]):
        with pytest.raises(DataError, match="expected 2 numbers from 0 up, one for each rejected answer"):
            Reward(margin="gap").items([example("no", "never", gap=gap)], chat, None)


def test_an_example_without_worse_answers_is_refused(chat: ChatFormat) -> None:
    with pytest.raises(DataError, match="no rejected answer") as caught:
        Reward().items([example()], chat, None)
    assert caught.value.where == "data.jsonl:3"


def test_a_recipe_names_it() -> None:
    assert build_method(RewardOptions()) == Reward()
    options = RewardOptions(margin="gap", center_coefficient=0.01)
    assert build_method(options) == Reward("gap", 0.01)
    assert (Reward().head, Reward().labels, Reward().needs_reference) == ("sequence", (), False)
    assert SFT().head is None


# training -----------------------------------------------------------------------------------------


def scorer(kind: str = "lora", **overrides: Any) -> Model:
    """A tiny model with a reward head, about to be trained."""
    base = tiny("llama", num_hidden_layers=1, **overrides).requires_grad_(False)
    loaded = LoadedModel(base, None, "tiny")  # type: ignore[arg-type]
    model = attach_adapter(loaded, Adapter(kind=kind, rank=4), seed=7)  # type: ignore[arg-type]
    attach_head(model, Reward(), seed=7)
    return model


def pairs(count: int, *, seed: int = 0, answers: int = 2, length: int | None = None) -> list[Item]:
    """Good answers are of tokens below 26, bad ones of others; those in between, in lists, have both."""
    dice = random.Random(seed)
    items = []
    for line in range(1, count + 1):
        prompt = [3, 4, 5 + line % 3, dice.randrange(60, 90)]
        rows = []
        for rank in range(answers):
            size = length or dice.randrange(2, 8)
            bad = round(size * rank / (answers - 1))
            answer = [dice.randrange(40, 46) for _ in range(bad)]
            answer += [dice.randrange(20, 26) for _ in range(size - bad)]
            dice.shuffle(answer)
            rows.append(read_at_end([*prompt, *answer, 2]))
        items.append(Item(f"data.jsonl:{line}", tuple(rows), wanted=(True, *(False,) * (answers - 1))))
    return items


def right_order(model: Model, items: Sequence[Item]) -> float:
    """Share of the pairs of neighbours in rank that the model puts in order."""
    found = []
    for item in items:
        values = score_sequences(model, [s.ids for s in item.sequences])[:, 0].tolist()
        found += [better > worse for better, worse in itertools.pairwise(values)]
    return sum(found) / len(found)


def test_a_prompt_is_computed_once_for_all_of_its_answers(tmp_path: Path) -> None:
    items = pairs(6, answers=4)
    _, summary = run(tmp_path, model=scorer(), method=Reward(), items=items, validation=[])
    assert summary["tokens"] == 2 * sum(item.tokens for item in items)
    assert summary["executed_tokens"] <= summary["tokens"] - 2 * 6 * 3 * 4


def test_eight_micro_batches_are_one_batch() -> None:
    model, items = scorer(), pairs(8, answers=3)
    shares: list[dict[str, torch.Tensor]] = []
    losses = []
    for parts in ([items], [[item] for item in items], [items[:3], items[3:]]):
        model.zero_grad()
        losses.append(sum(backward_of(model, Reward(), 8.0, 1, Told(), part) for part in parts))
        shares.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)
    for other in shares[1:]:
        assert all(relative_error(other[name], shares[0][name]) < 1e-4 for name in shares[0])


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_it_learns_a_rule(kind: str, tmp_path: Path) -> None:
    """Held-out answers of new prompts are ranked right, and were not before."""
    model, held = scorer(kind), pairs(30, seed=9)
    before = right_order(model, held)
    plan = settings(epochs=5, batch_tokens=200, learning_rate=2e-2 if kind == "lora" else 5e-3)
    _, summary = run(
        tmp_path, model=model, method=Reward(), items=pairs(60), validation=held[:10], settings=plan
    )
    assert before < 0.8
    assert right_order(model, held) >= 0.95
    assert summary["best_validation_loss"] < 0.3


def test_it_learns_lists(tmp_path: Path) -> None:
    model, held = scorer(), pairs(20, seed=9, answers=3, length=6)
    plan = settings(epochs=5, batch_tokens=300, learning_rate=2e-2)
    method = Reward(center_coefficient=0.01)
    items = pairs(50, answers=3, length=6)
    run(tmp_path, model=model, method=method, items=items, validation=[], settings=plan)
    assert right_order(model, held) >= 0.85
    level = torch.cat([score_sequences(model, [s.ids for s in item.sequences]) for item in held]).mean()
    assert abs(level.item()) < 2.0


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_resumed_is_uninterrupted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def go(folder: Path, **changes: Any) -> Any:
        given: dict[str, Any] = {"method": Reward(), "items": pairs(14), "validation": pairs(4, seed=5)}
        plan = settings(learning_rate=2e-2 if kind == "lora" else 3e-3)
        return outcome(folder, run(folder, model=scorer(kind), settings=plan, **given, **changes))

    whole = go(tmp_path / "whole")
    assert any("score" in name for name in whole[0])
    assert whole[2]["steps"] >= 6
    for step in (2, 5):
        with pytest.raises(Crash):
            go(tmp_path / "run", show=crash_at(step))
    shown: list[Any] = []
    assert same(go(tmp_path / "run", show=shown.append), whole)
    assert shown[0].step == 5


# TRL ----------------------------------------------------------------------------------------------


def trl_losses(
    model: torch.nn.Module,
    rows: list[dict[str, Any]],
    folder: Path,
    *,
    peak: float,
    batch: int,
    center: float,
) -> list[float]:
    """The loss of each step of TRL's own trainer, over rows in order, with our schedule."""
    pytest.importorskip("trl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer

        losses: list[float] = []

        class InOrder(RewardTrainer):  # type: ignore[misc]
            def _get_train_sampler(self, *args: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                loss = super().compute_loss(*args, **kwargs)
                losses.append(loss.item())
                return loss

        steps = len(rows) // batch
        arguments = RewardConfig(
            str(folder),
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            gradient_accumulation_steps=1,
            max_grad_norm=MAX_GRAD_NORM,
            center_rewards_coefficient=center or None,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            max_length=None,
        )
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.999), weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_at(min(step, steps - 1), steps=steps, peak=peak) / peak
        )
        tokenizer = byte_level(CHATML, ("<|im_start|>", "<|im_end|>"))
        tokenizer.pad_token = "</s>"
        InOrder(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            optimizers=(optimizer, schedule),
        ).train()
    return losses


@pytest.mark.parametrize(
    ("margins", "center"), [(True, 0.05), pytest.param(False, 0.0, marks=pytest.mark.slow)]
)
def test_ten_steps_are_trls(margins: bool, center: float, tmp_path: Path) -> None:
    """The same data in the same order, the same start of adapter and head: every step's loss is the same."""
    tokenizer = byte_level(CHATML, ("<|im_start|>", "<|im_end|>"))
    base = tiny("llama", vocab_size=len(tokenizer)).requires_grad_(False)
    loaded = LoadedModel(base, tokenizer, "tiny")
    ours = attach_adapter(loaded, Adapter(rank=4), seed=3)
    attach_head(ours, Reward(), seed=3)
    save_adapter(ours, tokenizer, tmp_path / "start", base_name="tiny")
    theirs = AutoModelForSequenceClassification.from_config(base.config)
    theirs.load_state_dict(
        {
            k: v
            for k, v in tiny("llama", vocab_size=len(tokenizer)).state_dict().items()
            if "lm_head" not in k
        },
        strict=False,
    )
    theirs.requires_grad_(False)
    theirs = PeftModel.from_pretrained(theirs, str(tmp_path / "start"), is_trainable=True)
    assert {tuple(p.shape) for p in theirs.parameters() if p.requires_grad} == {
        tuple(p.shape) for p in ours.parameters() if p.requires_grad
    }

    # equal sizes, so that both make ten batches of four; the lengths within a pair differ
    dice = random.Random(0)
    items = []
    for i in range(40):
        size, prompt = dice.randrange(2, 9), [dice.randrange(60, 90) for _ in range(4)]
        rows = [[*prompt, *(dice.randrange(20, 60) for _ in range(n)), 7] for n in (size, 10 - size)]
        known = (0.0, round(dice.random(), 2)) if margins else ()
        items.append(Item(f"d:{i}", tuple(map(read_at_end, rows)), wanted=(True, False), margins=known))
    tokens = 4 * items[0].tokens
    batches = epoch_batches(items, batch_tokens=tokens, seed=1, epoch=0)
    assert [len(batch) for batch in batches] == [4] * 10
    rows = [
        {"chosen_ids": list(items[i].sequences[0].ids), "rejected_ids": list(items[i].sequences[1].ids)}
        | ({"margin": items[i].margins[1]} if margins else {})
        for batch in batches
        for i in batch
    ]
    peak = 1e-2
    expected = trl_losses(theirs, rows, tmp_path / "trl", peak=peak, batch=4, center=center)
    lines: list[Any] = []
    run(
        tmp_path / "ours",
        model=ours,
        method=Reward(center_coefficient=center),
        items=items,
        validation=[],
        settings=settings(epochs=1, batch_tokens=tokens, learning_rate=peak),
        log=lines.append,
    )
    found = [line["loss"] for line in lines if "loss" in line]
    assert len(found) == len(expected) == 10
    assert found == pytest.approx(expected, abs=1e-4)
    assert max(found) - min(found) > 1e-2, "nothing was learnt that could differ"
    head = next(v for name, v in trainable(ours).items() if "score" in name)
    theirs_head = next(v for n, v in theirs.named_parameters() if v.requires_grad and "score" in n)
    assert relative_error(head, theirs_head) < 1e-2


def test_outputs_are_one_reward_an_answer() -> None:
    model, items = scorer(), pairs(3, answers=4)
    found = outputs_of(model, Reward(), items)
    assert [[tuple(own.shape) for own in answers] for answers in found] == [[(1,)] * 4] * 3
    again = outputs_of(model, Reward(), [replace(item, sequences=item.sequences[::-1]) for item in items])
    for own, turned in zip(found, again, strict=True):
        assert relative_error(torch.cat(own), torch.cat(turned[::-1])) < 1e-5
