"""When training ends, and which epoch it keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import equal, make_items, make_model, metrics, run, settings, trainable

from luthier.errors import TrainingError
from luthier.train import Progress
from luthier.train.state import Counters


def play(validations: Sequence[tuple[float | None, float | None]]) -> Counters:
    """The counters after these losses and scores, one step apart."""
    counters = Counters(micro_tokens=1)
    for loss, score in validations:
        counters.step += 1
        counters.validated(loss, score)
    return counters


@pytest.mark.parametrize(
    ("validations", "best", "stale"),
    [
        ([(3.0, None), (2.0, None), (2.5, None)], 2, 1),
        ([(3.0, None), (3.0, None)], 1, 1),  # the first of equals
        ([(3.0, 0.1), (2.0, 0.3), (1.0, 0.2)], 2, 0),  # the score decides, the loss still improves
        ([(3.0, 0.3), (2.0, 0.3), (2.5, 0.3)], 2, 1),  # equal scores: the loss decides
        ([(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)], 3, 0),
        ([(1.0, None), (2.0, 0.0)], 2, 0),  # a score beats none, even 0
        ([(1.0, 0.5), (0.5, None), (0.7, None)], 1, 1),
        ([(None, None), (None, None), (None, None)], 3, 3),  # nothing to choose by: the newest
        ([(None, 0.5), (None, 0.4), (None, 0.5)], 1, 2),
        ([(-1.0, None), (-2.0, None), (0.0, None)], 2, 1),
    ],
)
def test_best_epoch_by_hand(
    validations: list[tuple[float | None, float | None]], best: int, stale: int
) -> None:
    counters = play(validations)
    assert (counters.best_step, counters.stale_epochs) == (best, stale)
    assert (counters.best_loss, counters.best_score) == validations[best - 1]


@given(st.lists(st.tuples(st.floats(-5, 5), st.sampled_from([0.0, 0.25, 0.5])), min_size=1, max_size=12))
def test_best_epoch_is_the_first_of_highest_score_then_lowest_loss(
    validations: list[tuple[float, float]],
) -> None:
    best = max(range(len(validations)), key=lambda i: (validations[i][1], -validations[i][0], -i))
    assert play(validations).best_step == best + 1  # type: ignore[arg-type]


def scores(*values: float | None) -> Callable[[], float | None]:
    """A score that takes these values, one after the other."""
    left = list(values)
    return lambda: left.pop(0)


@pytest.mark.parametrize(
    ("patience", "values", "epochs"),
    [
        (1, [0.5, 0.4, 0.6], 2),
        (2, [0.5, 0.4, 0.6, 0.6, 0.6], 5),  # an improvement starts the count anew
        (2, [0.5, 0.4, 0.3], 3),
        (None, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 6),
    ],
)
def test_patience_counts_epochs_without_a_better_score(
    patience: int | None, values: list[float], epochs: int, tmp_path: Path
) -> None:
    model, after = make_model(), {}
    _, summary = run(
        tmp_path,
        model=model,
        validation=[],
        settings=settings(epochs=6, patience=patience),
        score=scores(*values),
        show=lambda p: after.__setitem__(p.step, trainable(model)),
    )
    per_epoch = summary["planned_steps"] // 6
    assert summary["steps"] == epochs * per_epoch
    ends = [line["validation_score"] for line in metrics(tmp_path) if "validation_score" in line]
    assert ends == values[:epochs]
    assert summary["best_step"] == (1 + values.index(max(values[:epochs]))) * per_epoch
    assert summary["best_validation_score"] == max(values[:epochs])
    assert equal(trainable(model), after[summary["best_step"]])
    stopped = f"no better validation for {patience} epochs (patience {patience})"
    assert summary["stopped"] == (stopped if epochs < 6 else "all epochs done")


def test_a_better_loss_is_enough_to_go_on(tmp_path: Path) -> None:
    items = make_items()  # learnt by heart: the loss falls and falls
    _, summary = run(tmp_path, validation=items, settings=settings(epochs=5, patience=1), score=lambda: 0.5)
    assert summary["stopped"] == "all epochs done"


def test_a_better_score_is_enough_to_go_on(tmp_path: Path) -> None:
    held_out = make_items(6, seed=5)  # what is learnt makes these less likely
    plan = settings(epochs=8, learning_rate=3e-2, patience=1)
    _, alone = run(tmp_path / "a", validation=held_out, settings=plan)
    assert alone["steps"] < alone["planned_steps"]
    _, scored = run(
        tmp_path / "b", validation=held_out, settings=plan, score=scores(*(k / 8 for k in range(8)))
    )
    assert scored["steps"] == scored["planned_steps"]
    assert scored["best_step"] == scored["steps"]


def test_the_score_is_of_the_model_as_it_stands(tmp_path: Path) -> None:
    model, after, asked = make_model(), {}, []

    def remember(progress: Progress) -> None:
        after[progress.step] = trainable(model)

    def score() -> float:
        asked.append(trainable(model))
        model.train()  # whatever it does to the mode is undone
        return 0.0

    _, summary = run(tmp_path, model=model, score=score, show=remember)
    half = summary["steps"] // 2
    assert len(asked) == 2
    assert equal(asked[0], after[half])
    assert equal(asked[1], after[2 * half])
    assert not model.training
    plain, _ = run(tmp_path / "plain", model=make_model(), score=lambda: 0.0)
    assert equal(trainable(plain), trainable(model))


def test_patience_without_anything_to_validate_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no validation examples\nFix: raise split.validation"):
        run(tmp_path, validation=[], settings=settings(patience=2))


def test_time_limit(tmp_path: Path) -> None:
    _, summary = run(tmp_path, settings=settings(epochs=50, max_minutes=1e-9), score=lambda: 0.5)
    assert summary["steps"] == summary["best_step"] == 1
    assert summary["stopped"] == "max_minutes of 1e-09 reached"
    assert metrics(tmp_path)[-1]["validation_loss"] == summary["best_validation_loss"]
    assert metrics(tmp_path)[-1]["validation_score"] == summary["best_validation_score"] == 0.5
