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

from luthier.errors import RecordError
from luthier.examples import Split
from luthier.pipeline import agreeing, answering, calibrating, doubting, learning_curve, stages, training
from luthier.pipeline.choosing import chooses
from luthier.pipeline.encoders import fit_encoder
from luthier.pipeline.environment import environment
from luthier.pipeline.inputs import answer_inputs, asked, split_inputs, systems, training_inputs
from luthier.pipeline.models import Models
from luthier.pipeline.scoring import ask_absent_judge_again, grader_inputs, require_judge
from luthier.pipeline.sources import Sources
from luthier.pipeline.texts import refuse_other_kind
from luthier.progress import Show, Silent
from luthier.recipe import Recipe, digest, dump_recipe, load_recipe
from luthier.recipe.probe_options import PROBE_NAMES, ProbeName, margin_of
from luthier.record import Record, explain_os_errors, write_json, write_text
from luthier.trackers import require_trackers

if TYPE_CHECKING:
    from luthier.chat import ChatFormat
    from luthier.models import LoadedModel, Model

# What is read from all stages: removed before a stage runs again, so that it never tells of other inputs.
CONCLUSIONS = ("verdict.json", "card.md", "report.html", "review.jsonl", "review.md")


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
        self.sources = Sources(recipe.data, texts=recipe.reads_texts)
        self.models = Models(recipe.model, self.record / "adapter", self.show)
        self._depth = 0
        self._fitted = False
        self._failed: set[str] = set()  # probes that crashed: once is enough for one process

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
        require_judge(self.recipe, self.record)
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
        self.learning_curve()
        if self.recipe.stakes == "high" and "tuned" in self.recipe.candidates:
            self.review()
        verdict = self.verdict()
        self.card()
        return verdict

    # --- examples -----------------------------------------------------------------------------

    def check(self) -> dict[str, Any]:
        """Audit the examples; returns the content of `audit.json`."""
        self._fit_model()
        with self._working():
            inputs = {
                "data": self.sources.hashes,
                "model": self.models.identity,
                "split": split_inputs(self.recipe, self.sources),
                **self._asked("system", "grader"),
            }
            work = partial(stages.write_audit, self.record, self.recipe, self.sources, self.show)
            self._stage("audit", inputs, ["audit.json", "audit.html"], work)
            audit: dict[str, Any] = self.record.read_json("audit.json")
            return audit

    def split(self) -> Split:
        """Divide the examples leak-safe; writes `data/` and returns the three sides."""
        with self._working():
            outputs = [*(f"data/{side}.jsonl" for side in stages.SIDES), "data/manifest.json"]
            work = partial(stages.write_split, self.record, self.recipe, self.sources)
            inputs = split_inputs(self.recipe, self.sources)
            self._stage("split", inputs, outputs, work, spoils=["scores.json"])
            split = stages.read_split(self.record)
            refuse_other_kind(self.recipe, split)
            return split

    # --- candidates ---------------------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        """Fine-tune; writes `adapter/` and `train/`, returns the content of `train/summary.json`."""
        self._need_trackers()
        self._fit_model()
        with self._working():
            self.split()
            inputs = training_inputs(self.record, self.recipe, self.models)
            work = partial(
                training.write_adapter, self.record, self.recipe, self.models, self.show, digest(inputs)
            )
            probes = [f"probes/{name}.json" for name in PROBE_NAMES]
            self._stage("train", inputs, training.OUTPUTS, work, spoils=["scores.json", *probes])
            inputs = {"trained": self.record.output_hash("train"), "split": self.record.output_hash("split")}
            self.record.stage("doubt", inputs, [doubting.FILE], partial(doubting.write_doubtful, self.record))
            summary: dict[str, Any] = self.record.read_json("train/summary.json")
            return summary

    def evaluate(self) -> dict[str, Any]:
        """Ask and grade every candidate on the test side; returns the content of `scores.json`."""
        from luthier.evidence.slices import check_fields

        self._fit_model()
        names = self.recipe.candidates
        require_judge(self.recipe, self.record)
        if "tuned" in names:
            self._need_trackers()
        with self._working():
            check_fields(self.split().test, self.recipe.slices)
            for name in names:
                work = partial(answering.write_answers, *self._tools(), name)
                inputs = self._answer_inputs(name)
                searched = name == "scratch" and not chooses(self.recipe, name)
                outputs = [f"answers/{name}.jsonl", *["search/scratch.json"] * searched]
                self._stage(f"answer-{name}", inputs, outputs, work, spoils=["scores.json"])
            chosen = [name for name in names if name == "scratch" or self._searches(name)]
            self._keep_only("search", [f"{name}.json" for name in chosen])
            inputs = {
                "answers": {name: self.record.output_hash(f"answer-{name}") for name in names},
                "split": self.record.output_hash("split"),
                **grader_inputs(self.recipe),
                **self._asked("seed", "prices", "slices"),
            }
            outputs = [*(f"predictions/{name}.jsonl" for name in names), "scores.json"]
            ask_absent_judge_again(self.record)
            self._stage("grade", inputs, outputs, partial(stages.write_scores, self.record, self.recipe))
            self._keep_only("predictions", [f"{name}.jsonl" for name in names])
            inputs = {"graded": self.record.output_hash("grade"), "split": self.record.output_hash("split")}
            work = partial(stages.write_failures, self.record, self.recipe)
            self._stage("failures", inputs, ["failures.json"], work)
            self._calibrate()
            scores: dict[str, Any] = self.record.read_json("scores.json")
            return scores

    def _calibrate(self) -> None:
        """What tuned's confidence is worth: its answers to the validation side, and `calibration.json`."""
        if "tuned" not in self.recipe.candidates or self.recipe.reads_texts:
            (self.record / "calibration.json").unlink(missing_ok=True)
            return
        inputs = {**self._answer_inputs("tuned"), **grader_inputs(self.recipe)}
        work = partial(answering.write_validation, *self._tools(), "tuned")
        self._stage("validation-tuned", inputs, [calibrating.VALIDATION], work, spoils=["calibration.json"])
        if agreeing.is_asked(self.recipe):
            greedy = [self.record.output_hash(name) for name in ("validation-tuned", "answer-tuned")]
            inputs = {**inputs, "greedy": greedy, **self._asked("confidence")}
            work = partial(agreeing.write_agreement, *self._tools())
            self._stage("agreement-tuned", inputs, [agreeing.FILE], work, spoils=["calibration.json"])
        inputs = calibrating.calibration_inputs(self.record, self.recipe)
        report = partial(calibrating.write_calibration, self.record, self.recipe)
        self._stage("calibrate", inputs, ["calibration.json"], report)

    # --- evidence -----------------------------------------------------------------------------

    def learning_curve(self) -> dict[str, Any] | None:
        """Train on parts of the examples too: `learning_curve.json`, or None where not asked for."""
        if not self.recipe.learning_curve or "tuned" not in self.recipe.candidates:
            return None
        with self._working():
            self.evaluate()

            def work() -> None:
                longest = self.recipe.max_new_tokens or self.models.longest_answer(self.split().train)
                self.models.forget()  # the smaller runs have models of their own
                recipe = self.recipe.model_copy(update={"max_new_tokens": longest})
                learning_curve.write_curve(
                    self.record, recipe, lambda recipe, folder: Run(recipe, folder, self.show).evaluate()
                )

            inputs = {
                "graded": self.record.output_hash("grade"),
                "adapter": self.record.output_hash("train"),
                **self._asked("seed"),
            }
            self._stage("learning_curve", inputs, ["learning_curve.json"], work)
            curve: dict[str, Any] = self.record.read_json("learning_curve.json")
            return curve

    def probe(self) -> dict[str, dict[str, Any]]:
        """Measure what tuning cost; returns the content of each `probes/*.json` by name."""
        names = self.recipe.probes if "tuned" in self.recipe.candidates else ()
        with self._working():
            self._keep_only("probes", [f"{name}.json" for name in names])
            for name in names:
                self.train()
                self._probe(name)
            return {name: self.record.read_json(f"probes/{name}.json") for name in names}

    def review(self) -> list[dict[str, Any]]:
        """List the answers that a person should read before release, from the record; returns the rows.

        Raises:
            RecordError: tuned has not been asked and graded.
        """
        from luthier.evidence.review import LIST, read_list
        from luthier.pipeline import reviewing

        with self._working():
            inputs = reviewing.review_inputs(self.record, self.recipe)
            work = partial(reviewing.write_review, self.record, self.recipe)
            outputs = [LIST, reviewing.PAGE]
            self.record.stage("review", inputs, outputs, work, spoils=CONCLUSIONS)
            return read_list(self.record)

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
        from luthier.pipeline.exporting import write_export

        return write_export(*self._tools(), format, out)

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

    def _probe(self, name: ProbeName) -> None:
        """Measure and report; one that crashes is reported as failed, and the next run tries it again."""
        from luthier.pipeline import probing

        probe, file = probing.PROBES[name], f"probes/{name}.json"
        inputs = {
            "model": self.models.identity,
            "adapter": self.record.output_hash("train"),
            **self._asked(*probe.reads),
        }
        if probe.asks_examples:
            inputs |= {"split": self.record.output_hash("split"), "systems": systems(self.recipe)}
        if (attempt := digest([name, inputs])) in self._failed:
            return
        try:
            work = partial(probing.measure, *self._tools(), name)
            self._stage(f"measure-{name}", inputs, [probing.measured_file(name)], work, spoils=[file])
            measured = self.record.output_hash(f"measure-{name}")
            margin = margin_of(self.recipe.gates, name)
            inputs = {"measured": measured, "margin": margin, **self._asked(*probe.reads, "seed")}
            inputs |= grader_inputs(self.recipe) if probe.grades else {}
            self._stage(f"probe-{name}", inputs, [file], partial(probing.report, *self._tools()[:2], name))
        except RecordError:
            raise  # the folder or its disk: nothing that a report could be written to
        except Exception as error:
            self._failed.add(attempt)
            with explain_os_errors(self.record.path):
                reason = probing.report_failure(self.record, self.recipe, name, error)
            self.show.note(f"probe {name}: {reason}")

    def _answer_inputs(self, name: str) -> dict[str, Any]:
        inputs = answer_inputs(self.record, self.recipe, self.models, name)
        if self._searches(name):
            inputs["search"] = self._search(name, inputs)
        if name == "tuned":
            self.train()
            inputs["adapter"] = self.record.output_hash("train")
        return inputs

    def _searches(self, name: str) -> bool:
        if name == "scratch" or chooses(self.recipe, name):
            return False
        return len(answering.settings_of(self.recipe, name)) > 1

    def _search(self, name: str, inputs: Mapping[str, Any]) -> str:
        """Choose on validation how a candidate is asked; returns the hash of what was found."""
        inputs = {**inputs, **grader_inputs(self.recipe), **self._asked("prompts")}
        work = partial(answering.write_search, *self._tools(), name)
        self._stage(f"search-{name}", inputs, [f"search/{name}.json"], work, spoils=["scores.json"])
        return self.record.output_hash(f"search-{name}")

    def _tools(self) -> tuple[Record, Recipe, Models, Show]:
        """What the work of a stage with a model needs."""
        return self.record, self.recipe, self.models, self.show

    def _fit_model(self) -> None:
        """Leave out what the model cannot be asked, once; the recipe in the folder is then without it."""
        if not self._fitted:
            self.recipe = fit_encoder(self.recipe, self.models, self.show)
            self._fitted = True

    def _need_trackers(self) -> None:
        """Refuse a missing package before the work that comes before training."""
        if self.record.stage_memo("train") is None:
            require_trackers(self.recipe.trackers)

    def _asked(self, *keys: str) -> dict[str, Any]:
        return asked(self.recipe, *keys)

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
