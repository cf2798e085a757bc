"""Memorization and overfitting: hand-made numbers; a model that learnt by heart is found, another is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_subjects as tiny
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from luthier.chat import ChatFormat
from luthier.models import LoadedModel
from luthier.probes import canaries, canary_sequences, measure_memorization, report_memorization
from luthier.probes.canaries import CODES, exposure
from luthier.probes.memorization import BITS, CONTINUATION, PREFIX, auc
from luthier.probes.overfitting import measure_losses, measure_overfitting, report_overfitting

WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron", "iris", "jade", "kelp")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def story(number: int) -> str:
    dice = np.random.default_rng(number)
    return " ".join(dice.choice(WORDS, 9))


def long_split(count: int = 6) -> Any:
    train = [(f"Tell story {i}.", story(i)) for i in range(count)]
    return tiny.split_of(train, [(f"Tell story {i}.", story(i)) for i in range(100, 100 + count)])


def learnt(loaded: LoadedModel, chat: ChatFormat, split: Any, made: list[Any]) -> Any:
    sequences = [chat.training(example)[-1] for example in split.train]
    sequences += [canary_sequences(canary, chat, None)[0] for canary in made]
    return tiny.fitted(loaded.model, sequences, steps=100)


# --- exposure ---------------------------------------------------------------------------------------


def test_exposure_by_hand() -> None:
    assert exposure([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]) == 3.0
    assert exposure([-2.5, -2.0, -1.0, -4.0, -5.0, -6.0, -7.0, -8.0]) == pytest.approx(3 - math.log2(3))
    assert exposure([-9.0, -2.0, -3.0, -4.0]) == 0.0
    assert exposure([-2.0, -2.0, -3.0, -4.0]) == 1.0  # a tie counts against it


def test_canaries_are_random_distinct_and_the_same_for_a_seed() -> None:
    made = canaries(5, seed=3)
    assert made == canaries(5, seed=3)
    assert [c.answer for c in made] != [c.answer for c in canaries(5, seed=4)]
    assert [c.repeats for c in made] == [1, 4, 16, 1, 4]
    assert len({c.request for c in made}) == 5
    for canary in made:
        assert len({canary.answer, *canary.others}) == CODES
        assert len({len(answer) for answer in (canary.answer, *canary.others)}) == 1
    assert canaries(2, seed=3) == made[:2]  # more canaries leave the first ones as they are


# --- membership -------------------------------------------------------------------------------------


def test_the_area_by_hand() -> None:
    area, low, high = auc([3.0, 2.0], [1.0, 2.0])
    assert area == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert low < 0.5 and 0.875 < high < 1
    assert auc([1.0], [2.0, 3.0]) == (None, None, None)


@given(
    members=st.lists(st.integers(-5, 5), min_size=2, max_size=12),
    others=st.lists(st.integers(-5, 5), min_size=2, max_size=12),
)
def test_the_area_is_sklearns_and_inside_its_interval(members: list[int], others: list[int]) -> None:
    area, low, high = auc(members, others)
    labels = [1] * len(members) + [0] * len(others)
    assert area == pytest.approx(roc_auc_score(labels, members + others))
    assert 0 <= low <= area <= high <= 1 and low < high


def test_a_perfect_area_is_not_certain() -> None:
    area, low, high = auc([5.0] * 10, [1.0] * 20)
    assert (area, high) == (1.0, 1.0)
    assert low == pytest.approx(0.025**0.1)


def test_the_interval_of_the_area_covers() -> None:
    dice, hits, rounds = np.random.default_rng(1), 0, 300
    truth = 0.76025  # of N(1, 1) above N(0, 1): Phi(1 / sqrt 2)
    for _ in range(rounds):
        _, low, high = auc(dice.normal(1, 1, 40), dice.normal(0, 1, 30))
        hits += low <= truth <= high
    assert hits / rounds > 0.95 - 4 * math.sqrt(0.95 * 0.05 / rounds)


# --- what a model learnt by heart -------------------------------------------------------------------


def test_what_was_learnt_by_heart_is_found(loaded: LoadedModel, chat: ChatFormat) -> None:
    split, made = long_split(), canaries(3, seed=0)
    models: dict[Any, Any] = {"base": loaded.model, "tuned": learnt(loaded, chat, split, made)}
    them = tiny.subjects(models, chat, split, canaries=3)
    measured = json.loads(json.dumps(measure_memorization(them)))
    report = report_memorization(measured, tiny.evidence(split))
    assert (report["base"], report["tuned"], report["finding"]) == (0.0, 1.0, "worse")
    assert report["flips"] == {"lost": 6, "gained": 0}
    assert report["n"] == 12
    first = report["examples"][0]
    given, expected = first["text"].split(" ▸ ")
    assert first["tuned"] == expected and any((given + expected) in story(i) for i in range(6))
    parts = {row["part"]: row for row in report["parts"]}
    membership = parts["training examples told from held-out ones by loss (AUC)"]
    assert (membership["base"], membership["tuned"], membership["n"]) == (0.5, 1.0, 12)
    assert membership["low"] > 0
    for times in ("once", "4 times", "16 times"):
        row = parts[f"canaries seen {times} an epoch"]
        assert (row["unit"], row["n"], row["tuned"]) == (BITS, 1, math.log2(CODES))
        assert row["base"] < 6
    them = tiny.subjects(models, chat, split, new=60)
    overfit = report_overfitting(
        json.loads(json.dumps(measure_overfitting(them))), tiny.evidence(split, 0.69)
    )
    assert overfit["finding"] == "worse" and overfit["difference"] > 1
    (gap,) = overfit["parts"]
    assert (gap["base"], gap["tuned"]) == (0.0, 1.0)
    quiet = {"base": loaded.model, "tuned": loaded.model}
    null = report_memorization(
        measure_memorization(tiny.subjects(quiet, chat, split, canaries=3)), tiny.evidence(split, 0.5)
    )
    assert (null["difference"], null["flips"]) == (0.0, {"lost": 0, "gained": 0})
    assert null["finding"] in ("within_margin", "not_powered")
    assert [row["difference"] for row in null["parts"]] == [0.0, 0.0, 0.0, 0.0]


def rows(train: list[tuple[str, str]], held: list[tuple[str, str]]) -> dict[str, Any]:
    made = [
        {"id": str(i), "side": side, "given": "g", "expected": "e", "base": b, "tuned": t}
        for side, pairs in (("train", train), ("test", held))
        for i, (b, t) in enumerate(pairs)
    ]
    losses = [{"side": s, "base": 1.0, "tuned": 1.0, "text": ""} for s in ("train", "train", "test", "test")]
    return {"verbatim": made, "losses": losses, "canaries": None}


def test_what_is_repeated_for_held_out_examples_too_was_not_memorized() -> None:
    split = tiny.split_of([], [])
    both = rows([("x", "e")] * 50 + [("x", "x")] * 50, [("x", "e")] * 50 + [("x", "x")] * 50)
    report = report_memorization(both, tiny.evidence(split, 0.2))
    assert (report["tuned"], report["difference"], report["finding"]) == (0.0, 0.0, "within_margin")
    only = rows([("x", "e")] * 50 + [("e", "x")] * 10 + [("x", "x")] * 40, [("x", "x")] * 100)
    report = report_memorization(only, tiny.evidence(split, 0.2))
    assert (report["base"], report["tuned"]) == (pytest.approx(0.1), pytest.approx(0.5))
    assert report["flips"] == {"lost": 50, "gained": 10}
    assert report["finding"] == "worse"


def test_answers_too_short_to_be_repeated_have_nothing_to_hide(loaded: LoadedModel, chat: ChatFormat) -> None:
    split = tiny.split_of([(f"q{i}", "good") for i in range(4)], [(f"r{i}", "bad") for i in range(4)])
    some = [chat.training(example)[-1] for example in split.train]
    models: dict[Any, Any] = {"base": loaded.model, "tuned": tiny.fitted(loaded.model, some, steps=5)}
    report = report_memorization(
        measure_memorization(tiny.subjects(models, chat, split)), tiny.evidence(split)
    )
    assert (report["difference"], report["high"], report["finding"]) == (0.0, 0.0, "within_margin")
    assert f"no answer has the {PREFIX + CONTINUATION} tokens" in report["reason"]


# --- overfitting ------------------------------------------------------------------------------------


def test_losses_are_of_the_answers_own_tokens(loaded: LoadedModel, chat: ChatFormat) -> None:
    split = long_split(2)
    models: dict[Any, Any] = {"base": loaded.model, "tuned": loaded.model}
    measured = measure_losses(tiny.subjects(models, chat, split))
    assert {row["id"] for row in measured} == {e.id for e in (*split.train, *split.test)}
    by_id = {example.id: example for example in (*split.train, *split.test)}
    for row in measured:
        (values,) = _plain(loaded.model, chat, by_id[row["id"]])
        assert row["base"] == pytest.approx(values, rel=1e-5)
        assert row["side"] == row["id"].split("-")[0]


def _plain(model: Any, chat: ChatFormat, example: Any) -> list[float]:
    from tiny_models import plain_logprobs

    sequence = chat.training(example)[-1]
    own = plain_logprobs(model, sequence.ids)[sequence.prompt_tokens - 1 :]
    return [-float(own.mean())]


def measured_losses(
    train: list[tuple[float, float]], held: list[tuple[float, float]]
) -> list[dict[str, Any]]:
    return [
        {"id": f"{side}-{i}", "side": side, "text": f"{side} {i}", "base": b, "tuned": t}
        for side, pairs in (("train", train), ("test", held))
        for i, (b, t) in enumerate(pairs)
    ]


def test_the_gap_that_training_opens_by_hand() -> None:
    split = tiny.split_of([("a", "x"), ("b", "x")], [("c", "x"), ("d", "x")])
    train = [(2.0, 0.5), (3.0, 0.9), (2.5, 0.8)]  # means 2.5 and 0.7333
    held = [(2.2, 1.9), (2.6, 2.0), (2.4, 2.4)]  # means 2.4 and 2.1
    answers = {"base": ["x", "y", "x", "x"], "tuned": ["x", "x", "x", "?"]}
    measured = {"losses": measured_losses(train, held), "answers": answers}
    report = report_overfitting(measured, tiny.evidence(split, 0.69))
    assert report["base"] == pytest.approx(2.4 - 2.5)
    assert report["tuned"] == pytest.approx(2.1 - 2.2 / 3)
    assert report["difference"] == pytest.approx(2.1 - 2.2 / 3 + 0.1)
    assert [e["text"] for e in report["examples"]] == ["train 1", "train 2", "train 0"]
    (gap,) = report["parts"]  # base: 1/2 - 1/1, tuned: 2/2 - 1/1, without the one that has no score
    assert (gap["base"], gap["tuned"], gap["n"]) == (-0.5, 0.0, 3)


def test_an_even_model_is_not_overfitted() -> None:
    dice = np.random.default_rng(0)
    even = [(2.0, 1.0 + float(noise)) for noise in dice.normal(0, 0.2, 200)]
    answers = {which: ["x"] for which in ("base", "tuned")}
    null = {"losses": measured_losses(even[:100], even[100:]), "answers": answers}
    split = tiny.split_of([("a", "x")], [])
    assert report_overfitting(null, tiny.evidence(split, 0.1))["finding"] == "within_margin"
