"""The main job: examples -> audit -> split -> candidates -> train -> grade -> probes -> verdict -> card.

Every step is a method of `Run` that reads the run folder, does what is not done yet, and writes to
it. A step runs the steps it needs, so each can be called alone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import __version__
from luthier.assets import suite_file
from luthier.errors import DataError, RecipeError, RecordError
from luthier.examples import Example, Split, read_examples, split_examples
from luthier.progress import Show, Silent
from luthier.recipe import SUITES, Recipe, digest, dump_recipe, load_recipe
from luthier.record import Record, explain_os_errors, sha256_of, write_json, write_jsonl, write_text

if TYPE_CHECKING:
    from peft import PeftModel

    from luthier.candidates import Answer
    from luthier.chat import ChatFormat
    from luthier.models import LoadedModel

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "scikit-learn", "scipy", "numpy", "bm25s")
SIDES = ("train", "validation", "test")


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
        self._base: LoadedModel | None = None
        self._tuned: PeftModel | None = None

    @classmethod
    def open(cls, folder: Path | str, show: Show | None = None) -> Run:
        """The run of an existing folder.

        Raises:
            RecordError: it holds no recipe.
        """
        folder = Path(folder)
        if not (folder / "recipe.yaml").is_file():
            raise RecordError(
                "not a run folder: it holds no recipe.yaml",
                where=str(folder),
                fix="start one with: luthier run recipe.yaml --out " + str(folder),
            )
        return cls(load_recipe(folder / "recipe.yaml"), folder, show)

    def all(self) -> dict[str, Any]:
        """Every step, to the verdict; returns the content of `verdict.json`."""
        self.check()
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
                "data": self._data_hashes,
                "system": self.recipe.system,
                "model": self._identity,
                "grader": self.recipe.grader,
                "split": self._split_inputs,
            }
            self.record.stage("audit", inputs, ["audit.json"], self._audit)
            audit: dict[str, Any] = self.record.read_json("audit.json")
            return audit

    def split(self) -> Split:
        """Divide the examples leak-safe; writes `data/` and returns the three sides."""
        with self._working():
            outputs = [f"data/{side}.jsonl" for side in SIDES] + ["data/manifest.json"]
            self.record.stage("split", self._split_inputs, outputs, self._split)
            return self._read_split()

    # --- candidates ---------------------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        """Fine-tune; writes `adapter/` and `train/`, returns the content of `train/summary.json`."""
        with self._working():
            self.split()
            inputs = {
                "split": self.record.output_hash("split"),
                "model": self._identity,
                **self.recipe.model_dump(include={"system", "method", "adapter", "train", "seed"}),
            }
            outputs = ["adapter", "train/summary.json", "train/metrics.jsonl"]
            self.record.stage("train", inputs, outputs, lambda: self._train(digest(inputs)))
            summary: dict[str, Any] = self.record.read_json("train/summary.json")
            return summary

    def evaluate(self) -> dict[str, Any]:
        """Ask and grade every candidate on the test side; returns the content of `scores.json`."""
        with self._working():
            self.split()
            for name in self.recipe.candidates:
                inputs = self._answer_inputs(name)
                work = lambda name=name: self._answer(name)  # noqa: E731
                self.record.stage(f"answer-{name}", inputs, [f"answers/{name}.jsonl"], work)
            inputs = {
                "answers": {
                    name: self.record.output_hash(f"answer-{name}") for name in self.recipe.candidates
                },
                "split": self.record.output_hash("split"),
                "grader": [self.recipe.grader, self._file_hash(self._grader_file)],
                "schema": self._file_hash(self.recipe.answer_schema),
                "seed": self.recipe.seed,
            }
            outputs = [f"predictions/{name}.jsonl" for name in self.recipe.candidates] + ["scores.json"]
            self.record.stage("grade", inputs, outputs, self._grade)
            scores: dict[str, Any] = self.record.read_json("scores.json")
            return scores

    # --- evidence -----------------------------------------------------------------------------

    def probe(self) -> dict[str, dict[str, Any]]:
        """Measure what tuning cost; returns the content of each `probes/*.json` by name."""
        if "tuned" not in self.recipe.candidates:
            return {}
        with self._working():
            self.train()
            for name in self.recipe.probes:
                inputs = {
                    "model": self._identity,
                    "adapter": self.record.output_hash("train"),
                    "items": self.recipe.probe_items if name == "forgetting" else None,
                    "margin": self.recipe.gates.max_forgetting if name == "forgetting" else None,
                    "seed": self.recipe.seed,
                }
                work = {"forgetting": self._probe_forgetting, "own_text": self._probe_own_text}[name]
                self.record.stage(f"probe-{name}", inputs, [f"probes/{name}.json"], work)
            return {name: self.record.read_json(f"probes/{name}.json") for name in self.recipe.probes}

    def verdict(self, *, min_gain: float | None = None) -> dict[str, Any]:
        """Decide from the record; returns the content of `verdict.json`.

        Args:
            min_gain: another gate than the recipe's, for this decision only: it is not written.
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
            out: `export/FORMAT` in the run folder when absent.

        Raises:
            RecipeError: an unknown format.
            ModelError: nothing has been trained.
        """
        from luthier.models import export_merged

        if format != "merged":
            raise RecipeError(
                f"unknown format {format!r}", fix="use --format merged; the adapter itself is in adapter/"
            )
        into = out or self.record / "export" / format
        base = self.base()
        with explain_os_errors(into), self.show.task("merging", None):
            export_merged(base, self.record / "adapter", into)
        self._base = None  # the adapter is merged into these weights
        return into

    def base(self) -> LoadedModel:
        """The base model without an adapter, loaded once."""
        from luthier.models import load_model

        if self._base is None or self._tuned is not None:
            self._tuned = None
            self._base = None  # let go of the adapted copy before loading a plain one
            with self.show.task(f"loading {self.recipe.model}", None):
                self._base = load_model(self.recipe.model)
        return self._base

    def tuned(self) -> PeftModel:
        """The base model with this run's adapter.

        Raises:
            ModelError: it has not been trained.
        """
        from luthier.models import load_adapter

        if self._tuned is None:
            self._tuned = load_adapter(self.base(), self.record / "adapter")
        return self._tuned

    @cached_property
    def chat(self) -> ChatFormat:
        """How this run's model writes conversations."""
        from luthier.chat import ChatFormat

        base = self._base or self.base()
        return ChatFormat(base.tokenizer, extra_stop_ids=base.stop_ids)

    # --- stages -------------------------------------------------------------------------------

    def _audit(self) -> None:
        from luthier.audit import audit_examples
        from luthier.models.load import load_tokenizer

        tokenizer = load_tokenizer(self.recipe.model)
        sides = self._sources if len(self._sources) > 1 else {"all": self._sources["train"]}
        with self.show.task("checking examples", None):
            audit = audit_examples(
                sides,
                system=self.recipe.system,
                special_tokens=tokenizer.all_special_tokens,
                answer_kind=self._answer_kind,
                test_share=self.recipe.split.test,
            )
        write_json(self.record / "audit.json", audit.as_json())

    def _split(self) -> None:
        from luthier.examples.duplicates import find_near_duplicates
        from luthier.examples.wording import request_text

        loose = self._sources["train"]
        given = {side: examples for side, examples in self._sources.items() if side != "train"}
        clusters = find_near_duplicates([request_text(example) for example in loose])
        shares = self.recipe.split
        split = split_examples(
            loose,
            validation=shares.validation,
            test=shares.test,
            seed=self.recipe.seed,
            near_duplicates=[cluster.members for cluster in clusters],
            given=given,  # type: ignore[arg-type]
        )
        for side, examples in split.sides().items():
            write_jsonl(self.record / f"data/{side}.jsonl", (example.as_row() for example in examples))
        how = "by hash of each group of near-duplicates, so that no group is on two sides"
        manifest = {
            "sources": [
                {
                    "side": side,
                    "file": file,
                    "sha256": self._data_hashes[side],
                    "format": loaded,
                    "examples": count,
                }
                for side, (file, loaded, count) in self._formats.items()
            ],
            "sides": {
                side: {"examples": len(examples), "sha256": sha256_of(self.record / f"data/{side}.jsonl")}
                for side, examples in split.sides().items()
            },
            "method": how if not given else f"{', '.join(given)} as given; the rest {how}",
            "near_duplicate_clusters": len(clusters),
        }
        write_json(self.record / "data/manifest.json", manifest)

    def _answer(self, name: str) -> None:
        from luthier.candidates import answer_from_scratch

        split = self._read_split()
        if name == "scratch":
            with self.show.task("scratch: training and answering", None):
                answers = answer_from_scratch(split.test, split.train, seed=self.recipe.seed)
        else:
            answers = self._ask(name, split)
        write_jsonl(self.record / f"answers/{name}.jsonl", (answer.as_row() for answer in answers))

    def _ask(self, name: str, split: Split) -> list[Answer]:
        from luthier.candidates import ask, few_shot_messages, prompt_messages, retrieval_messages

        model = self.tuned() if name == "tuned" else self.base().model
        chat, system, shots = self.chat, self.recipe.system, self.recipe.shots
        if name == "few_shot":
            asked = few_shot_messages(
                split.test, split.train, chat, system, shots=shots, seed=self.recipe.seed
            )
        elif name == "retrieval":
            asked = retrieval_messages(split.test, split.train, chat, system, shots=shots)
        else:
            asked = {example.id: prompt_messages(example, chat, system) for example in split.test}
        longest = max(len(chat.prompt(messages)) for messages in asked.values())
        limit = self._context_limit()
        new = self._max_new_tokens(split.train)
        if limit is not None and longest + new > limit:
            raise DataError(
                f"candidate {name}: a prompt of {longest} tokens and an answer of up to {new} do not fit "
                f"the model's {limit}",
                fix="lower `shots`, shorten the examples, or choose a model with a longer context",
            )
        with self.show.task(f"{name}: answering", len(asked)) as advance:
            return ask(model, chat, asked, max_new_tokens=new, advance=advance)

    def _train(self, key: str) -> None:
        from luthier.methods import METHODS
        from luthier.models import attach_adapter, save_adapter
        from luthier.train import Progress, train
        from luthier.train.batches import batches_per_epoch

        split = self._read_split()
        loaded = self.base()
        method = METHODS[self.recipe.method]
        items = method.items(split.train, self.chat, self.recipe.system)
        held = method.items(split.validation, self.chat, self.recipe.system)
        limit = self._context_limit()
        for item in (*items, *held):
            length = max(len(sequence.ids) for sequence in item.sequences)
            if limit is not None and length > limit:
                raise DataError(
                    f"an example of {length} tokens does not fit the model's {limit}",
                    where=item.where,
                    fix="shorten or split it; Luthier never cuts examples silently",
                )
        model = attach_adapter(loaded, self.recipe.adapter, seed=self.recipe.seed)
        self._tuned = model
        tokens = sum(item.tokens for item in items)
        epochs = self.recipe.train.epochs
        self.show.note(f"training on {len(items)} examples: {tokens:,} tokens an epoch, {epochs} epochs")
        steps = batches_per_epoch(items, self.recipe.train.batch_tokens) * epochs
        with self.show.task("tuned: training", steps) as advance:
            shown = 0

            def show(progress: Progress) -> None:
                nonlocal shown
                held_loss = progress.validation_loss
                detail = f"loss {progress.loss:.3f}" + (f", validation {held_loss:.3f}" if held_loss else "")
                advance(progress.step - shown, detail)
                shown = progress.step

            summary = train(
                model,
                method,
                items,
                held,
                self.recipe.train,
                seed=self.recipe.seed,
                folder=self.record / "train",
                key=key,
                show=show,
            )
        save_adapter(
            model, loaded.tokenizer, self.record / "adapter", base_name=_base_name(self.recipe.model)
        )
        size = sum(f.stat().st_size for f in (self.record / "adapter").glob("adapter_model*"))
        write_json(
            self.record / "train/summary.json",
            {
                "method": self.recipe.method,
                "adapter": self.recipe.adapter.model_dump(),
                **summary,
                "adapter_bytes": size,
            },
        )

    def _grade(self) -> None:
        from luthier.evaluation import grade_answers, summarise

        split = self._read_split()
        grader = self._grader(split.train)
        tables: dict[str, list[dict[str, Any]]] = {}
        for name in self.recipe.candidates:
            answers = self.record.read_jsonl(f"answers/{name}.jsonl")
            tables[name] = grade_answers(answers, split.test, grader)
            write_jsonl(self.record / f"predictions/{name}.jsonl", tables[name])
        scores = summarise(tables, split.test, grader, seed=self.recipe.seed)
        write_json(self.record / "scores.json", scores)

    def _probe_forgetting(self) -> None:
        from luthier.probes import base_forgetting, choice_items, report_forgetting
        from luthier.probes.forgetting import option_logprobs

        items = choice_items(self.recipe.probe_items)
        options = sum(len(item.options) for item in items)
        tuned, tokenizer = self.tuned(), self.base_tokenizer
        with self.show.task("forgetting: base", options) as advance, tuned.disable_adapter():
            base_scores = base_forgetting(tuned, tokenizer, self._identity, items, advance)
        with self.show.task("forgetting: tuned", options) as advance:
            tuned_scores = option_logprobs(tuned, tokenizer, items, advance)
        report = report_forgetting(
            items, base_scores, tuned_scores, margin=self.recipe.gates.max_forgetting, seed=self.recipe.seed
        )
        write_json(self.record / "probes/forgetting.json", report)

    def _probe_own_text(self) -> None:
        from luthier.probes import base_own_text, report_own_text
        from luthier.probes.own_text import REQUESTS, own_text_nll

        tuned = self.tuned()
        with self.show.task("own text: base", len(REQUESTS)) as advance, tuned.disable_adapter():
            texts = base_own_text(tuned, self.chat, self._identity, advance)
        with self.show.task("own text: tuned", len(texts)) as advance:
            nll = own_text_nll(tuned, texts, advance)
        report = report_own_text(self.chat, texts, nll, seed=self.recipe.seed)
        write_json(self.record / "probes/own_text.json", report)

    # --- inputs -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Hold the folder and write down recipe and environment; nested steps hold it once."""
        if self._depth:
            yield
            return
        with self.record.lock():
            self._depth += 1
            try:
                text = dump_recipe(self.recipe)
                path = self.record / "recipe.yaml"
                if not path.is_file() or path.read_text(encoding="utf-8") != text:
                    write_text(path, text)
                if not (self.record / "environment.json").is_file():
                    write_json(self.record / "environment.json", environment(self.recipe.seed))
                yield
            finally:
                self._depth -= 1

    _depth = 0

    @cached_property
    def _identity(self) -> str:
        from luthier.models import model_identity

        return model_identity(self.recipe.model)

    @property
    def base_tokenizer(self) -> Any:
        """The tokenizer of the loaded model."""
        return (self._base or self.base()).tokenizer

    @cached_property
    def _data_files(self) -> dict[str, str]:
        given = {side: file for side, file in self.recipe.data.model_dump().items() if file is not None}
        return {
            side: str(suite_file(file.removeprefix(SUITES))) if file.startswith(SUITES) else file
            for side, file in given.items()
        }

    @cached_property
    def _data_hashes(self) -> dict[str, str | None]:
        return {side: sha256_of(Path(file)) for side, file in self._data_files.items()}

    @cached_property
    def _loaded_files(self) -> dict[str, Any]:
        return {side: read_examples(file) for side, file in self._data_files.items()}

    @property
    def _sources(self) -> dict[str, Sequence[Example]]:
        return {side: loaded.examples for side, loaded in self._loaded_files.items()}

    @property
    def _formats(self) -> dict[str, tuple[str, str, int]]:
        return {
            side: (self._data_files[side], loaded.format, len(loaded.examples))
            for side, loaded in self._loaded_files.items()
        }

    @property
    def _split_inputs(self) -> dict[str, Any]:
        return {"data": self._data_hashes, "seed": self.recipe.seed, "split": self.recipe.split.model_dump()}

    def _answer_inputs(self, name: str) -> dict[str, Any]:
        inputs: dict[str, Any] = {"split": self.record.output_hash("split"), "seed": self.recipe.seed}
        if name != "scratch":
            inputs |= {
                "model": self._identity,
                "system": self.recipe.system,
                "max_new_tokens": self.recipe.max_new_tokens,
            }
        if name in ("few_shot", "retrieval"):
            inputs["shots"] = self.recipe.shots
        if name == "tuned":
            self.train()
            inputs["adapter"] = self.record.output_hash("train")
        return inputs

    def _read_split(self) -> Split:
        sides = {
            side: tuple(
                map(Example.from_row, self.record.read_jsonl(f"data/{side}.jsonl", needed_by="split"))
            )
            for side in SIDES
        }
        return Split(**sides)

    def _max_new_tokens(self, train: Sequence[Example]) -> int:
        if self.recipe.max_new_tokens is not None:
            return self.recipe.max_new_tokens
        longest = max(
            len(self.base_tokenizer(example.answer, add_special_tokens=False).input_ids) for example in train
        )
        return int(1.5 * longest) + 8

    def _context_limit(self) -> int | None:
        base = self._base or self.base()
        limit = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None

    def _grader(self, train: Sequence[Example]) -> Any:
        from luthier.grade import build_grader, choose_grader

        references = [example.answer for example in train]
        name = self.recipe.grader or choose_grader(references)
        schema = self.recipe.answer_schema
        return build_grader(name, references, answer_schema=Path(schema) if schema else None)

    @property
    def _answer_kind(self) -> Any:
        grader = self.recipe.grader
        if grader is None:
            return None
        return {"label": "label", "json_schema": "json", "json_fields": "json"}.get(grader, "text")

    @property
    def _grader_file(self) -> str | None:
        grader = self.recipe.grader or ""
        return grader.removeprefix("python:").rsplit(":", 1)[0] if grader.startswith("python:") else None

    def _file_hash(self, file: str | None) -> str | None:
        return None if file is None else sha256_of(Path(file))


def environment(seed: int) -> dict[str, Any]:
    """Versions, hardware and source commit: the content of `environment.json`."""
    import psutil
    import torch

    return {
        "luthier": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "git": _git_commit(),
        "seed": seed,
        "started": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _git_commit() -> str | None:
    """The commit of the folder the run was started in, where that is a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _base_name(model: str) -> str:
    """What the adapter names as its base: the public hub id of an embedded model."""
    from luthier.models.embedded import HUB_IDS

    return HUB_IDS.get(model, model)
