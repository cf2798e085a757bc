"""What the trials of a sweep share: the base in memory, and all that is read or computed with it before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from luthier.card.numbers import duration
from luthier.errors import StoppedError, TrainingError
from luthier.pipeline import training
from luthier.pipeline.models import Models
from luthier.progress import Show
from luthier.recipe import Recipe, digest
from luthier.record import Record
from luthier.sweep.search import Rung
from luthier.sweep.space import Metric
from luthier.sweep.trials import Measured, State, Trial, better

if TYPE_CHECKING:
    from luthier.models.lending import LentBase
    from luthier.pipeline.training import Material
    from luthier.train.estimate import Estimate

# of `train`, what changes nothing of the examples and what is computed of them before training
LATER = {"epochs", "learning_rate", "batch_tokens", "patience", "select", "temper"}
# of `train`, what changes nothing of the work and the memory of a step
FREE = {"learning_rate", "patience", "select", "temper"}
VIRTUAL = ("prefix", "prompt")


class Shared:
    """Trains trials one after the other, each from where it was left, on one base.

    Args:
        record: of the sweep: its split is what is trained on.
        models: with the bare base. What is attached to it is taken off again after each training.
        trainings: how many whole trainings the sweep will come to.
    """

    def __init__(
        self,
        record: Record,
        models: Models,
        show: Show,
        metric: Metric,
        *,
        trainings: float,
    ) -> None:
        self._record, self._models, self._show, self._metric = record, models, show, metric
        self._trainings = trainings
        self._base: LentBase | None = None
        self._materials: dict[str, Material] = {}
        self._estimates: dict[str, Estimate] = {}

    def advance(self, trial: Trial, recipe: Recipe, rung: Rung | None, called: str) -> None:
        """Train a trial up to a rung, or to its end, and write down where it is then.

        A loss that is not finite, or whatever else training refuses to go on with, ends this trial alone.

        Args:
            recipe: the trial's own.
            called: what the bar says.

        Raises:
            StoppedError: SIGTERM came; what was done is saved.
            ModelError: the recipe asks for what the model has not.
        """
        try:
            summary = self._train(trial, recipe, rung, called)
        except StoppedError:
            raise
        except TrainingError as error:
            trial.steps = max((line["step"] for line in _metrics(trial)), default=0)
            self._end(trial, "failed", error.message)
            return
        trial.steps, trial.planned_steps = summary["steps"], summary["planned_steps"]
        trial.seconds = summary["seconds"]
        kept = summary[f"best_{self._metric}"]
        if summary["stopped"] is None:
            now = summary[self._metric]
            trial.rungs.append(Measured(trial.steps, now, better([now, kept], self._metric)))
            trial.course = self._course(trial)
            trial.save()
        else:
            trial.best, trial.course = kept, self._course(trial)
            self._end(trial, "done", summary["stopped"])

    def stop(self, trial: Trial, reason: str) -> None:
        """End a trial that is not to go on."""
        self._end(trial, "stopped", reason)

    def _end(self, trial: Trial, state: State, reason: str) -> None:
        from luthier.train.checkpoint import Checkpoints

        trial.state, trial.reason = state, reason
        trial.save()
        Checkpoints(trial.folder / "train/checkpoints", trial.key).clear()

    def _train(self, trial: Trial, recipe: Recipe, rung: Rung | None, called: str) -> dict[str, Any]:
        from luthier.models.lending import LentBase

        material, cost = self._material(recipe), _cost(recipe)
        record = Record(trial.folder)
        if self._base is None:
            self._base = LentBase(self._models.base())
        with self._base.lent():
            attached = training.attach(record, recipe, self._models, material)
            like = self._estimates.get(cost)
            planned = training.make_plan(record, recipe, attached, trial.key, like=like)
            if not self._estimates:
                self._tell(planned.estimate)
            self._estimates[cost] = planned.estimate
            trial.planned_steps = planned.estimate.steps
            tools = (record, recipe, self._models, self._show, attached, planned, trial.key)
            until = None if rung is None else rung.step(planned.estimate.steps)
            return training.train_on(*tools, until=until, called=called)

    def _material(self, recipe: Recipe) -> Material:
        """Read, tokenized and computed with the bare base, once for all trials in which it is the same."""
        adapter = recipe.adapter
        virtual = adapter.virtual_tokens if adapter.kind in VIRTUAL else 0  # they take room of the context
        train = recipe.train.model_dump(exclude=LATER)
        key = digest([recipe.model_dump(include={"method"}), train, virtual])
        if key not in self._materials:
            plain = recipe.model_copy(update={"train": recipe.train.model_copy(update={"temper": ()})})
            self._materials[key] = training.gather(self._record, plain, self._models, self._show)
        return self._materials[key]

    def _tell(self, estimate: Estimate) -> None:
        whole = self._trainings
        self._show.note(
            f"one training: {estimate.steps} steps, about {duration(estimate.seconds)}; "
            f"the sweep comes to {whole:.1f} of them, about {duration(whole * estimate.seconds)}"
        )

    def _course(self, trial: Trial) -> list[tuple[int, float]]:
        """Step and metric at the ends of epochs, from the trial's own metrics, and where it was compared."""
        points = {one.step: one.now for one in trial.rungs if one.now is not None}
        for line in _metrics(trial):
            if line.get(self._metric) is not None:
                points[line["step"]] = line[self._metric]
        return sorted(points.items())


def _metrics(trial: Trial) -> list[dict[str, Any]]:
    """The lines of the trial's own `metrics.jsonl`; none where it was not begun."""
    file = "train/metrics.jsonl"
    return Record(trial.folder).read_jsonl(file) if (trial.folder / file).is_file() else []


def _cost(recipe: Recipe) -> str:
    """Trainings of the same take the same time and memory."""
    train = recipe.train.model_dump(exclude=FREE)
    return digest([recipe.model_dump(include={"method", "adapter"}), train])
