"""`Run`: one method per step, each a few stages with what they depend on.

A stage is keyed by its inputs: the recipe's keys that it reads, and the hashes of the outputs that it
reads. The work itself is in `stages.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import RecipeError, RecordError
from luthier.examples import Split
from luthier.pipeline import stages, training
from luthier.pipeline.environment import environment
from luthier.pipeline.models import Models
from luthier.pipeline.sources import Sources
from luthier.progress import Show, Silent
from luthier.recipe import Recipe, digest, dump_recipe, load_recipe
from luthier.record import Record, explain_os_errors, sha256_of, write_json, write_text
from luthier.trackers import require_trackers

if TYPE_CHECKING:
    from luthier.chat import ChatFormat
    from luthier.models import LoadedModel, Model

# What is read from all stages: removed before a stage runs again, so that it never tells of other inputs.
CONCLUSIONS = ("verdict.json", "card.md", "report.html")


class Run:
    """One recipe in one folder.

    Args:
        recipe: as `load_recipe` gives it.
        folder: the run folder; created when absent, resumed when not.
        show: where progress is shown; silent when absent.
    """

    def __init__(self, recipe: Recipe, folder: Path | str, show: Show | None = None) -> None:
        self.recipe = recipe
        self.record = Record(folder)
        self.show = show or Silent()
        self.sources = Sources(recipe.data)
        self.models = Models(recipe.model, self.record / "adapter", self.show)
        self._depth = 0

    @classmethod
    def open(cls, folder: Path | str, show: Show | None = None) -> Run:
        """The run of an existing folder.

        Raises:
            RecordError: there is none, or it holds no recipe.
        """
        folder = Path(folder)
        if not (folder / "recipe.yaml").is_file():
            found = "not a run folder: it holds no recipe.yaml" if folder.exists() else "no such run folder"
            fix = f"start one with: luthier run recipe.yaml --out {folder}"
            raise RecordError(found, where=str(folder), fix=fix)
        return cls(load_recipe(folder / "recipe.yaml"), folder, show)

    def all(self) -> dict[str, Any]:
        """Every step, to the verdict; returns the content of `verdict.json`."""
        self._need_trackers()
        found = [finding["severity"] for finding in self.check()["findings"]]
        if errors := found.count("error"):
            warnings = found.count("warning")
            self.show.note(
                f"the examples have {errors} errors and {warnings} warnings: luthier check {self.record.path}"
            )
        self.split()
        self.evaluate()
        self.probe()
        verdict = self.verdict()
        self.card()
        return verdict

    # --- examples -----------------------------------------------------------------------------

    def check(self) -> dict[str, Any]:
        """Audit the examples; returns the content of `audit.json`."""
        with self._working():
            inputs = {
                "data": self.sources.hashes,
                "model": self.models.identity,
                "split": self._split_inputs(),
                **self._asked("system", "grader"),
            }
            work = partial(stages.write_audit, self.record, self.recipe, self.sources, self.show)
            self._stage("audit", inputs, ["audit.json"], work)
            audit: dict[str, Any] = self.record.read_json("audit.json")
            return audit

    def split(self) -> Split:
        """Divide the examples leak-safe; writes `data/` and returns the three sides."""
        with self._working():
            outputs = [*(f"data/{side}.jsonl" for side in stages.SIDES), "data/manifest.json"]
            work = partial(stages.write_split, self.record, self.recipe, self.sources)
            self._stage("split", self._split_inputs(), outputs, work, spoils=["scores.json"])
            return stages.read_split(self.record)

    # --- candidates ---------------------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        """Fine-tune; writes `adapter/` and `train/`, returns the content of `train/summary.json`."""
        self._need_trackers()
        with self._working():
            self.split()
            inputs = {
                "split": self.record.output_hash("split"),
                "model": self.models.identity,
                **self._asked("system", "method", "adapter", "train", "seed"),
            }
            if self.recipe.train.select == "score":
                inputs |= {**self._grader_inputs(), **self._asked("max_new_tokens")}
            outputs = ["adapter", "train/summary.json", "train/metrics.jsonl"]
            work = partial(
                training.write_adapter, self.record, self.recipe, self.models, self.show, digest(inputs)
            )
            probes = [f"probes/{name}.json" for name in ("forgetting", "own_text")]
            self._stage("train", inputs, outputs, work, spoils=["scores.json", *probes])
            summary: dict[str, Any] = self.record.read_json("train/summary.json")
            return summary

    def evaluate(self) -> dict[str, Any]:
        """Ask and grade every candidate on the test side; returns the content of `scores.json`."""
        names = self.recipe.candidates
        if "tuned" in names:
            self._need_trackers()
        with self._working():
            self.split()
            for name in names:
                work = partial(stages.write_answers, self.record, self.recipe, self.models, self.show, name)
                inputs = self._answer_inputs(name)
                self._stage(f"answer-{name}", inputs, [f"answers/{name}.jsonl"], work, spoils=["scores.json"])
            inputs = {
                "answers": {name: self.record.output_hash(f"answer-{name}") for name in names},
                "split": self.record.output_hash("split"),
                **self._grader_inputs(),
                **self._asked("seed"),
            }
            outputs = [*(f"predictions/{name}.jsonl" for name in names), "scores.json"]
            self._stage("grade", inputs, outputs, partial(stages.write_scores, self.record, self.recipe))
            self._keep_only("predictions", [f"{name}.jsonl" for name in names])
            scores: dict[str, Any] = self.record.read_json("scores.json")
            return scores

    # --- evidence -----------------------------------------------------------------------------

    def probe(self) -> dict[str, dict[str, Any]]:
        """Measure what tuning cost; returns the content of each `probes/*.json` by name."""
        names = self.recipe.probes if "tuned" in self.recipe.candidates else ()
        with self._working():
            self._keep_only("probes", [f"{name}.json" for name in names])
            for name in names:
                self.train()
                {"forgetting": self._forgetting, "own_text": self._own_text}[name]()
            return {name: self.record.read_json(f"probes/{name}.json") for name in names}

    def verdict(self, *, min_gain: float | None = None) -> dict[str, Any]:
        """Decide from the record; returns the content of `verdict.json`.

        Args:
            min_gain: another gate than the recipe's, for this decision only: it is not written.

        Raises:
            RecordError: the candidates have not been graded.
        """
        from luthier.verdict import decide

        gates = self.recipe.gates
        if min_gain is not None:
            return decide(self.record, gates.model_copy(update={"min_gain": min_gain}))
        with self._working():
            verdict = decide(self.record, gates)
            write_json(self.record / "verdict.json", verdict)
            return verdict

    def card(self) -> tuple[Path, Path]:
        """Write `card.md` and `report.html` from the record; returns their paths."""
        from luthier.card import write_card, write_report

        with self._working():
            return write_card(self.record), write_report(self.record)

    # --- for other commands -------------------------------------------------------------------

    def export(self, format: str = "merged", out: Path | None = None) -> Path:
        """Write the tuned model for use elsewhere; returns the folder.

        Args:
            format: `merged`, a Transformers folder with tokenizer and chat template.
            out: a folder that is empty or not there; `export/FORMAT` in the run folder when absent.

        Raises:
            RecipeError: an unknown format, or `out` holds something.
            ModelError: nothing has been trained.
        """
        from luthier.models import export_merged

        if format != "merged":
            fix = "use --format merged; the adapter itself is in adapter/"
            raise RecipeError(f"unknown format {format!r}", fix=fix)
        if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RecipeError("already there, and not empty", where=str(out), fix="name a new folder")
        into = out or self.record / "export" / format
        base = self.models.base()
        with explain_os_errors(into), self.show.task("merging", None):
            export_merged(base, self.record / "adapter", into)
        self.models.forget()  # the adapter is merged into these weights
        return into

    def base(self) -> LoadedModel:
        """The base model without an adapter."""
        return self.models.base()

    def tuned(self) -> Model:
        """The base model with this run's adapter, or what full fine-tuning made of it.

        Raises:
            ModelError: it has not been trained.
        """
        return self.models.tuned()

    @property
    def chat(self) -> ChatFormat:
        """How this run's model writes conversations."""
        return self.models.chat

    # --- stages and their inputs --------------------------------------------------------------

    def _stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Iterable[str],
        work: Callable[[], None],
        spoils: Iterable[str] = (),
    ) -> None:
        if self.record.stage(name, inputs, outputs, work, spoils=[*spoils, *CONCLUSIONS]):
            self._note_environment()

    def _forgetting(self) -> None:
        ask = partial(stages.measure_forgetting, self.record, self.recipe, self.models, self.show)
        report = partial(stages.write_forgetting, self.record, self.recipe)
        items = self._asked("probe_items")
        self._probe("forgetting", ask, report, items, self.recipe.gates.max_forgetting)

    def _own_text(self) -> None:
        ask = partial(stages.measure_own_text, self.record, self.models, self.show)
        report = partial(stages.write_own_text, self.record, self.recipe)
        self._probe("own_text", ask, report, {}, self.recipe.gates.max_drift)

    def _probe(
        self,
        name: str,
        ask: Callable[[], None],
        report: Callable[[], None],
        items: Mapping[str, Any],
        margin: float,
    ) -> None:
        """Measuring needs the model, reporting does not: another margin is only reported again."""
        inputs = {
            "model": self.models.identity,
            "adapter": self.record.output_hash("train"),
            **items,
        }
        file = f"probes/{name}.json"
        self._stage(f"measure-{name}", inputs, [stages.MEASURED[name]], ask, spoils=[file])
        measured = self.record.output_hash(f"measure-{name}")
        inputs = {"measured": measured, "margin": margin, **items, **self._asked("seed")}
        self._stage(f"probe-{name}", inputs, [file], report)

    def _split_inputs(self) -> dict[str, Any]:
        return {"data": self.sources.hashes, **self._asked("seed", "split")}

    def _answer_inputs(self, name: str) -> dict[str, Any]:
        inputs = {"split": self.record.output_hash("split"), **self._asked("seed")}
        if name != "scratch":
            inputs |= {"model": self.models.identity, **self._asked("system", "max_new_tokens")}
        if name in ("few_shot", "retrieval"):
            inputs |= self._asked("shots")
        if name == "tuned":
            self.train()
            inputs["adapter"] = self.record.output_hash("train")
        return inputs

    def _grader_inputs(self) -> dict[str, Any]:
        grader = self.recipe.grader or ""
        file = grader.removeprefix("python:").rsplit(":", 1)[0] if grader.startswith("python:") else None
        return {
            "grader": [self.recipe.grader, _file_hash(file)],
            "schema": _file_hash(self.recipe.answer_schema),
        }

    def _need_trackers(self) -> None:
        """Refuse a missing package before the work that comes before training."""
        if self.record.stage_memo("train") is None:
            require_trackers(self.recipe.trackers)

    def _asked(self, *keys: str) -> dict[str, Any]:
        """Keys of the recipe, as plain values."""
        return self.recipe.model_dump(include=set(keys))

    def _keep_only(self, folder: str, names: Iterable[str]) -> None:
        """Remove results that the recipe asked for once and no longer does."""
        for path in (self.record / folder).glob("*.json*"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Hold the folder and write down recipe and environment; nested steps hold it once."""
        if self._depth:
            yield
            return
        with self.record.lock():
            self._depth += 1
            try:
                with explain_os_errors(self.record.path):
                    self._write_recipe()
                yield
            finally:
                self._depth -= 1

    def _write_recipe(self) -> None:
        path = self.record / "recipe.yaml"
        text = dump_recipe(self.recipe)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def _note_environment(self) -> None:
        """After work was done: a finished run that is only looked at keeps the environment it ran in."""
        path = self.record / "environment.json"
        known = self.record.read_json("environment.json") if path.is_file() else {}
        if {**known, "started": None} != {**self._environment, "started": None}:
            with explain_os_errors(path):
                write_json(path, self._environment)

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(self.recipe.seed)


def _file_hash(file: str | None) -> str | None:
    return None if file is None else sha256_of(Path(file))
