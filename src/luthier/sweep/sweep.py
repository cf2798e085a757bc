"""A sweep from its recipe to its result: trials over one base, the hopeless ones stopped early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.errors import DataError, RecordError, TrainingError
from luthier.pipeline import Run
from luthier.pipeline.inputs import training_inputs
from luthier.progress import Show
from luthier.recipe import Recipe, digest, dump_recipe
from luthier.record import Record, explain_os_errors, write_json, write_text
from luthier.sweep.chart import say_changes
from luthier.sweep.page import write_page
from luthier.sweep.search import Rung, draw_trials, finalists, plan_rungs, planned_share, rank
from luthier.sweep.shared import Shared
from luthier.sweep.space import Axis, Metric, metric_of, read_axes, trial_recipe, value_of
from luthier.sweep.trials import Trial

# of a recipe, what no training depends on
UNUSED = {
    *("name", "stakes", "candidates", "shots", "documents", "retrieval", "scratch", "prompts", "slices"),
    *("probes", "probe_items", "gates", "abstain", "confidence", "prices", "learning_curve", "trackers"),
}
STANDING = ("done", "stopped", "failed", "open")
RATE = "train.learning_rate"
PLAN, RESULT, BEST = "plan.json", "sweep.json", "best.yaml"


def run_sweep(
    recipe: Recipe,
    folder: Path | str,
    over: Sequence[str],
    *,
    trials: int | None = None,
    metric: Metric | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train several adapters over one base and find the best by validation; the test side is not looked at.

    What is finished is not done again: the same call goes on where a killed one stopped, to the same result.

    Args:
        folder: of the sweep. Gets `data/`, `trials/`, `sweep.json`, `sweep.html` and `best.yaml`.
        over: `KEY=LOW..HIGH` or `KEY=VALUE,VALUE,...`, each once per key.
        trials: how many; all combinations of short lists, or 8, where None.
        metric: what is compared; a score grades up to 64 answers to validation requests. The loss where None,
            but for methods that learn from answers of their own, which have none.

    Returns:
        The content of `sweep.json`.

    Raises:
        RecipeError: what is swept over cannot be understood.
        DataError: there are no validation examples.
        RecordError: the folder holds another sweep.
        TrainingError: no trial could be trained.
    """
    metric = metric or metric_of(recipe)
    axes = read_axes(over, recipe, metric)
    recipes = _recipes(recipe, axes, trials, metric)
    asked = digest([metric, [one.model_dump(mode="json", exclude=UNUSED) for one in recipes]])
    run = Run(recipe, folder, show)
    _refuse_another(run.record, "asked", asked)  # before a file of it is replaced
    found = [finding["severity"] for finding in run.check()["findings"]]
    if errors := found.count("error"):
        run.show.note(f"the examples have {errors} errors: luthier check {run.record.path}")
    if not run.split().validation:
        fix = "raise split.validation, or name a file of them in data"
        raise DataError("there are no validation examples to compare trials on", fix=fix)
    with run.record.lock(), explain_os_errors(run.record.path):
        opened = _open_trials(run, axes, recipes)
        rungs = plan_rungs(len(opened))
        _keep_plan(run.record, {"asked": asked, "over": list(over), "metric": metric}, opened, rungs)
        _train_all(run, metric, opened, recipes, rungs)
        result = _conclude(metric, axes, opened, rungs)
        write_json(run.record / RESULT, result)
        write_page(run.record, result, name=recipe.name, model=Path(recipe.model).name)
        _write_best(run.record, recipe.name, result, recipes[result["best"] - 1], over)
    written: dict[str, Any] = run.record.read_json(RESULT)
    return written


def _recipes(recipe: Recipe, axes: Sequence[Axis], count: int | None, metric: Metric) -> list[Recipe]:
    """One per trial; trackers tell them apart by name."""
    always = {"train.select": "score"} if metric == "validation_score" else {}
    return [
        trial_recipe(recipe, {**changes, **always, "name": f"{recipe.name}-{number}"}, where="--over")
        for number, changes in enumerate(draw_trials(axes, count, seed=recipe.seed), start=1)
    ]


def _open_trials(run: Run, axes: Sequence[Axis], recipes: Sequence[Recipe]) -> list[Trial]:
    """Each as far as it got; its key is the hash of all that decides its result."""
    trials = []
    for number, recipe in enumerate(recipes, start=1):
        changes = {axis.key: value_of(recipe, axis.key) for axis in axes}
        key = digest(training_inputs(run.record, recipe, run.models))
        trials.append(Trial.load(number, changes, key, run.record / f"trials/{number:02}"))
    return trials


def _keep_plan(
    record: Record, asked: Mapping[str, Any], trials: Sequence[Trial], rungs: Sequence[Rung]
) -> None:
    """Write the plan, or refuse a folder where one of other examples is under way."""
    key = digest([trial.key for trial in trials])
    _refuse_another(record, "key", key)
    changes = [dict(trial.changes) for trial in trials]
    plan = {**asked, "key": key, "rungs": [asdict(rung) for rung in rungs], "trials": changes}
    write_json(record / PLAN, plan)


def _refuse_another(record: Record, name: str, value: str) -> None:
    if not (record / PLAN).is_file():
        return
    known = record.read_json(PLAN)
    if known[name] != value:
        raise RecordError(
            f"this folder holds another sweep: {len(known['trials'])} trials over {' '.join(known['over'])} "
            f"by {known['metric']}, of a recipe and examples as they were",
            where=str(record.path),
            fix="choose another folder with --out, or remove this one",
        )


def _train_all(
    run: Run, metric: Metric, trials: Sequence[Trial], recipes: Sequence[Recipe], rungs: Sequence[Rung]
) -> None:
    trainings = len(trials) * planned_share(len(trials), rungs)
    shared = Shared(run.record, run.models, run.show, metric, trainings=trainings)

    def advance(trial: Trial, rung: Rung | None) -> None:
        shared.advance(
            trial,
            recipes[trial.number - 1],
            rung,
            f"trial {trial.number} of {len(trials)}: {say_changes(trial.changes)}",
        )

    axes = {key for trial in trials for key in trial.changes}
    rates = {trial.number: trial.changes[RATE] for trial in trials} if axes == {RATE} else {}
    alive = list(trials)
    for place, rung in enumerate(rungs):
        for trial in alive:
            if trial.state == "open" and len(trial.rungs) <= place:
                advance(trial, rung)
        values = {trial.number: trial.value_at(place) for trial in alive}
        order = rank(values, higher_is_better=metric == "validation_score")
        kept = order[: rung.keep]
        if rates and place and rung is rungs[-1]:
            kept = finalists(order, rung.keep, values, rates)
        for trial in alive:
            if trial.number not in kept and trial.state == "open":
                ahead = order.index(trial.number)
                after = f"{ahead} of {len(alive)} were better after {rung.share:.0%} of the steps"
                passed = "" if ahead >= rung.keep else ", and the next higher rate than the best went on"
                shared.stop(trial, after + passed)
        alive = [trial for trial in alive if trial.number in kept]
    for trial in alive:
        if trial.state == "open":
            advance(trial, None)


def _conclude(
    metric: Metric, axes: Sequence[Axis], trials: Sequence[Trial], rungs: Sequence[Rung]
) -> dict[str, Any]:
    """The content of `sweep.json`.

    Raises:
        TrainingError: no trial was trained to its end, or none has the metric.
    """
    sign = -1.0 if metric == "validation_score" else 1.0

    def place(trial: Trial) -> tuple[int, int, bool, float, int]:
        """What was trained to the end first; of what was stopped, what was stopped later."""
        rungs_done = len(trial.rungs) if trial.state == "stopped" else 0
        value = trial.value
        return STANDING.index(trial.state), -rungs_done, value is None, sign * (value or 0.0), trial.number

    order = [trial.number for trial in sorted(trials, key=place)]
    best = trials[order[0] - 1]
    if best.state != "done" or best.value is None:
        reason = next((trial.reason for trial in trials if trial.state == "failed"), None)
        told = f"no trial could be trained; the first one: {reason}" if reason else f"no trial has a {metric}"
        raise TrainingError(told.replace("_", " "), fix="sweep over other values, or by another --metric")
    return {
        "metric": metric,
        "axes": [axis.as_json() for axis in axes],
        "rungs": [asdict(rung) for rung in rungs],
        "trials": [{**trial.as_json(), "value": trial.value} for trial in trials],
        "ranking": order,
        "best": best.number,
        "steps": sum(trial.steps for trial in trials),
        "planned_steps": sum(trial.planned_steps for trial in trials),
        "seconds": round(sum(trial.seconds for trial in trials), 2),
    }


def _write_best(
    record: Record, name: str, result: dict[str, Any], recipe: Recipe, over: Sequence[str]
) -> None:
    value = next(row["value"] for row in result["trials"] if row["number"] == result["best"])
    head = (
        f"# Trial {result['best']} of {len(result['trials'])} over {' '.join(over)}\n"
        f"# {result['metric'].replace('_', ' ')} {value:.6g}, which chose it: the test side is unseen\n"
    )
    write_text(record / BEST, head + dump_recipe(recipe.model_copy(update={"name": name})))
