"""What is swept over and who goes on: values, mistakes, spread, successive halving."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import RecipeError
from luthier.recipe import Recipe, load_recipe, parse_recipe
from luthier.sweep.search import Rung, draw_trials, finalists, plan_rungs, planned_share, rank
from luthier.sweep.space import Axis, read_axes, trial_recipe, value_of

RATES = "train.learning_rate=1e-5..1e-3"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return parse_recipe({"model": "smollm2-135m", "data": "tickets.jsonl"}, base=tmp_path)


def axis_of(text: str, recipe: Recipe) -> Axis:
    (axis,) = read_axes([text], recipe, "validation_score")
    return axis


# --- values -------------------------------------------------------------------------------------------


def test_a_range_of_two_decades_is_even_in_its_logarithm(recipe: Recipe) -> None:
    axis = axis_of(RATES, recipe)
    assert axis.is_log
    assert [axis.at(share) for share in (0.0, 0.25, 0.5, 1.0)] == [1e-5, 3.16e-5, 1e-4, 1e-3]


def test_a_narrow_range_and_one_from_zero_are_even(recipe: Recipe) -> None:
    narrow, zero = axis_of("train.learning_rate=1e-4..9e-4", recipe), axis_of("train.replay=0..0.4", recipe)
    assert not narrow.is_log and not zero.is_log
    assert narrow.at(0.5) == 5e-4
    assert [zero.at(share) for share in (0.0, 0.5, 1.0)] == [0.0, 0.2, 0.4]


def test_whole_numbers_stay_whole(recipe: Recipe) -> None:
    wide, narrow = axis_of("adapter.rank=4..64", recipe), axis_of("train.epochs=1..4", recipe)
    assert [wide.at(i / 4) for i in range(5)] == [4, 8, 16, 32, 64]
    assert [narrow.at(i / 3) for i in range(4)] == [1, 2, 3, 4]
    assert all(type(axis.at(0.4)) is int for axis in (wide, narrow))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("adapter.rank=4,8,16", (4, 8, 16)),
        ("train.learning_rate=auto, 1e-4", ("auto", 1e-4)),
        ("adapter.layers=all,last 10,[0, 1]", ("all", "last 10", [0, 1])),
        ("adapter.kind=lora,dora", ("lora", "dora")),
        ("method=dpo,simpo", ("dpo", "simpo")),
    ],
)
def test_lists(text: str, values: tuple[Any, ...], recipe: Recipe) -> None:
    axis = axis_of(text, recipe)
    found = [value_of(trial_recipe(recipe, {axis.key: v}, where=""), axis.key) for v in axis.values]
    assert [v["kind"] if isinstance(v, dict) else v for v in found] == list(values)


def test_a_trial_differs_from_the_recipe_in_what_is_swept_alone(recipe: Recipe) -> None:
    other = trial_recipe(recipe, {"train.learning_rate": 1e-4, "adapter.rank": 4}, where="")
    assert (other.train.learning_rate, other.adapter.rank) == (1e-4, 4)
    back = other.model_copy(update={"train": recipe.train, "adapter": recipe.adapter})
    assert back == recipe


@pytest.mark.parametrize(
    ("text", "said", "fix"),
    [
        ("train.learning_rate", "expected KEY=VALUES", "1e-5..1e-3"),
        ("=1..2", "expected KEY=VALUES", "adapter.rank"),
        ("train.lerning_rate=1e-5..1e-3", "unknown key 'train.lerning_rate'", "'train.learning_rate'"),
        ("learning_rate=1e-5..1e-3", "unknown key 'learning_rate'", "'train.learning_rate'"),
        ("trian.epochs=1,2", "unknown key 'trian'", "'train'"),
        ("train.epochs=0..3", "train.epochs: Input should be greater than or equal to 1 (got 0)", None),
        ("train.epochs=1.5,2", "train.epochs: expected a whole number (got 1.5)", None),
        (
            "train.learning_rate=fast,1e-3",
            "train.learning_rate: expected a number or auto (got 'fast')",
            None,
        ),
        ("train.learning_rate=1e-3..1e-5", "expected a range from low to high", None),
        ("train.learning_rate=1e-5..", "expected two numbers", "1e-5..1e-3"),
        ("train.learning_rate=1e-5..fast", "expected two numbers", None),
        ("adapter.rank=8", "expected at least two different values", None),
        ("adapter.rank=8,4,8", "expected at least two different values", None),
        ("adapter.layers=[0,1", "expected values with commas", None),
        ("adapter.kind=lora,full", "full fine-tuning changes", "another `kind`"),
        ("adapter.kind=lora,lroa", "adapter.kind", "did you mean 'lora'"),
        ("seed=1,2", "'seed' cannot be swept", "train.learning_rate"),
        ("split.test=0.2,0.3", "'split.test' cannot be swept", "train.learning_rate"),
        ("train.max_minutes=1,2", "'train.max_minutes' cannot be swept", None),
        ("method.beta=0.1,0.2", "method is 'sft' here, which has no options", None),
    ],
)
def test_mistakes_are_told(text: str, said: str, fix: str | None, recipe: Recipe) -> None:
    with pytest.raises(RecipeError) as caught:
        read_axes([text], recipe, "validation_score")
    assert said in caught.value.message
    assert "--over" in (caught.value.where or "")
    assert fix is None or fix in (caught.value.fix or "")


def test_keys_are_swept_once_and_at_least_one_is(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="there twice"):
        read_axes([RATES, "train.learning_rate=1e-4,1e-3"], recipe, "validation_loss")
    with pytest.raises(RecipeError, match="nothing to sweep over"):
        read_axes([], recipe, "validation_loss")


def test_losses_of_different_methods_are_not_compared(recipe: Recipe) -> None:
    preferring = trial_recipe(recipe, {"method": "dpo"}, where="")
    read_axes(["method.beta=0.05..0.5"], preferring, "validation_score")
    with pytest.raises(RecipeError, match="cannot be compared") as caught:
        read_axes(["method.beta=0.05..0.5"], preferring, "validation_loss")
    assert "--metric validation_score" in (caught.value.fix or "")


def test_a_recipe_that_trains_the_base_is_refused(recipe: Recipe) -> None:
    whole = trial_recipe(recipe, {"adapter.kind": "full"}, where="")
    with pytest.raises(RecipeError, match="which full fine-tuning changes"):
        read_axes([RATES], whole, "validation_loss")


# --- which trials -------------------------------------------------------------------------------------

RATE = Axis("train.learning_rate", low=1e-5, high=1e-3)
RANK = Axis("adapter.rank", values=(4, 8, 16))
KIND = Axis("adapter.kind", values=("lora", "dora"))


def test_one_range_is_divided_evenly_with_both_ends() -> None:
    rates = [trial[RATE.key] for trial in draw_trials([RATE], 5, seed=0)]
    assert rates == [1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3]
    assert len(draw_trials([RATE], None, seed=0)) == 8


def test_short_lists_are_tried_in_full() -> None:
    trials = draw_trials([RANK, KIND], None, seed=0)
    assert sorted((t[RANK.key], t[KIND.key]) for t in trials) == sorted(
        itertools.product((4, 8, 16), ("lora", "dora"))
    )
    assert len(draw_trials([RANK, KIND], 6, seed=0)) == 6
    assert len(draw_trials([RANK, KIND], 100, seed=0)) == 6


@given(st.integers(2, 12), st.integers(0, 5))
def test_several_keys_are_spread_evenly_along_each(count: int, seed: int) -> None:
    trials = draw_trials([RATE, RANK], count, seed=seed)
    if count < 3:
        assert len(trials) == count
        return
    rates = sorted(trial[RATE.key] for trial in trials)
    assert len(trials) == count and len(set(rates)) == count
    steps = [math.log(b / a) for a, b in itertools.pairwise(rates)]
    assert max(steps) < 1.05 * min(steps)
    counts = [sum(trial[RANK.key] == value for trial in trials) for value in RANK.values]
    assert max(counts) - min(counts) <= 1
    assert trials == draw_trials([RATE, RANK], count, seed=seed)


def test_the_spread_design_is_better_than_a_chance_one() -> None:
    """Along the diagonal two keys would never be told apart."""
    other = Axis("train.replay", low=0.0, high=0.4)
    trials = draw_trials([RATE, other], 8, seed=0)
    places = [(math.log10(t[RATE.key]) / 2 * 7, t[other.key] / 0.4 * 7) for t in trials]
    nearest = min(math.dist(a, b) for a, b in itertools.combinations(places, 2))
    assert nearest > 2.1  # of the 8! designs in two dimensions the best have sqrt(8)
    assert draw_trials([RATE, other], 8, seed=1) != trials


def test_whole_numbers_that_coincide_are_one_trial() -> None:
    epochs = Axis("train.epochs", low=1, high=3, whole=True)
    assert draw_trials([epochs], 8, seed=0) == [{"train.epochs": n} for n in (1, 2, 3)]


# --- who goes on --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "rungs"),
    [
        (2, []),
        (3, [Rung(0.25, 2)]),
        (4, [Rung(0.25, 2)]),
        (8, [Rung(0.1875, 4), Rung(0.375, 2)]),
        (16, [Rung(0.1875, 8), Rung(0.3062, 4), Rung(0.5, 2)]),
    ],
)
def test_the_better_half_goes_on_until_two_are_left(count: int, rungs: list[Rung]) -> None:
    assert plan_rungs(count) == rungs


def test_eight_trials_cost_three_and_a_half_trainings() -> None:
    """8 times 3/16, then 4 times as much again, then 2 times the remaining 5/8: 3/2 + 3/4 + 5/4."""
    assert 8 * planned_share(8, plan_rungs(8)) == pytest.approx(3.5)
    assert planned_share(2, plan_rungs(2)) == 1.0


@given(st.integers(2, 64))
def test_comparisons_come_later_and_keep_fewer(count: int) -> None:
    rungs = plan_rungs(count)
    assert all(a.share < b.share and a.keep > b.keep for a, b in itertools.pairwise(rungs))
    assert all(0.1875 <= rung.share <= 0.5 for rung in rungs)
    assert [rung.keep for rung in rungs][-1:] in ([], [2])


def test_a_rung_is_a_share_of_a_trials_own_steps() -> None:
    assert [Rung(0.125, 4).step(planned) for planned in (3, 16, 17, 96)] == [1, 2, 3, 12]


def test_ranks() -> None:
    values = {1: 0.5, 2: None, 3: 0.4, 4: 0.5}
    assert rank(values, higher_is_better=False) == [3, 1, 4, 2]
    assert rank(values, higher_is_better=True) == [1, 4, 3, 2]
    assert rank({1: None, 2: 0.0}, higher_is_better=True) == [2, 1]


@pytest.mark.parametrize(
    ("rates", "values", "expected"),
    [
        (
            (1e-3, 2e-3, 4e-3, 8e-3),
            (0.4, 0.2, 0.6, 0.3),
            [2, 3],
        ),  # the worst, but the next higher rate
        ((1e-3, 8e-3, 4e-3, 2e-3), (0.4, 0.2, 0.6, 0.3), [2, 4]),  # the best is the highest
        ((1e-3, 2e-3, 2e-3, 8e-3), (0.4, 0.2, 0.5, None), [2, 1]),  # the only higher one failed
    ],
)
def test_of_learning_rates_the_next_higher_one_goes_on(
    rates: tuple[float, ...], values: tuple[float | None, ...], expected: list[int]
) -> None:
    known = dict(enumerate(values, 1))
    order = rank(known, higher_is_better=False)
    assert finalists(order, 2, known, dict(enumerate(rates, 1))) == expected


def test_the_starter_recipe_of_the_demo_can_be_swept() -> None:
    from luthier.demo import RECIPE

    (axis,) = read_axes([RATES], load_recipe(RECIPE), "validation_loss")
    assert axis.as_json() == {"key": "train.learning_rate", "low": 1e-5, "high": 1e-3, "log": True}
