"""Whole runs on a tiny random model: the files, what is computed again, runs that are killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import luthier
import luthier.models
import luthier.probes
from luthier.errors import DataError, ModelError, RecipeError, RecordError
from luthier.pipeline import Run
from luthier.progress import Advance
from luthier.record import sha256_of

STAGES = {
    "audit",
    "split",
    "train",
    "doubt",
    *(f"answer-{name}" for name in ("prompt", "few_shot", "retrieval", "scratch", "tuned")),
    "grade",
    "failures",
    "validation-tuned",
    "calibrate",
    "measure-forgetting",
    "probe-forgetting",
    "measure-own_text",
    "probe-own_text",
}
# Every file of a run folder that another program may read, with fields it may rely on.
FILES = {
    "recipe.yaml": [],
    "environment.json": ["luthier", "python", "platform", "cpu", "packages", "git", "seed", "started"],
    "data/train.jsonl": ["id", "messages", "file", "line"],
    "data/validation.jsonl": ["id", "messages", "file", "line"],
    "data/test.jsonl": ["id", "messages", "file", "line"],
    "data/manifest.json": ["sources", "sides", "method", "near_duplicate_clusters"],
    "audit.json": ["findings", "summary", "examples", "failed"],
    "audit.html": [],
    **{
        f"predictions/{name}.jsonl": [
            *("id", "prompt", "answer", "reference", "score", "reason", "detail", "confidence"),
            *("prompt_tokens", "answer_tokens", "seconds", "input", "file", "line"),
        ]
        for name in ("prompt", "few_shot", "retrieval", "scratch", "tuned")
    },
    "search/scratch.json": ["candidate", "side", "n", "tried", "not_tried", "chosen", "reason"],
    "scores.json": ["metric", "grader", "candidates", "paired", "detectable_difference"],
    "calibration.json": [
        *("candidate", "n", "temperature", "before", "after", "risk_coverage", "abstention"),
    ],
    "failures.json": ["prompt", "few_shot", "retrieval", "scratch", "tuned"],
    "train/metrics.jsonl": [
        *("step", "epoch", "loss", "grad_norm", "learning_rate", "tokens"),
        *("executed_tokens", "seconds", "memory_bytes"),
    ],
    "train/losses.jsonl": ["epoch", "step", "where", "loss", "tokens"],
    "train/doubtful.json": ["says", "reason", "judged", "found"],
    "train/plan.json": ["key", "run", "estimate"],
    "train/summary.json": [
        *("method", "adapter", "steps", "epochs", "examples", "tokens", "trained_tokens", "executed_tokens"),
        *("seconds", "tokens_per_second", "best_step", "learning_rate", "trainable_parameters"),
        *("total_parameters", "adapter_bytes", "peak_memory_bytes", "stopped"),
    ],
    "adapter/adapter_config.json": ["base_model_name_or_path", "r", "lora_alpha"],
    "adapter/adapter_model.safetensors": [],
    "adapter/tokenizer.json": [],
    "adapter/tokenizer_config.json": [],
    "adapter/chat_template.jinja": [],
    "probes/forgetting.json": [
        *("probe", "n", "base", "tuned", "difference", "low", "high", "flips", "margin", "finding"),
        *("reason", "unit", "accuracy", "abilities", "examples"),
    ],
    "probes/own_text.json": [
        *("probe", "n", "base", "tuned", "difference", "low", "high", "flips", "margin", "finding"),
        *("reason", "unit", "examples"),
    ],
    "verdict.json": ["decision", "recommended", "headline", "gates", "reasons", "confident_and_wrong"],
    "card.md": [],
    "report.html": [],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model, examples and a recipe; the public suites and the cache are stand-ins."""
    folder = tmp_path_factory.mktemp("pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"))
        yield folder


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """A finished run; tests copy it before they change it."""
    open_run(home, home / "run").all()
    return home / "run"


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def open_run(home: Path, folder: Path, **changes: Any) -> Run:
    return Run(luthier.load_recipe(home / "recipe.yaml", changes), folder)


def memos(folder: Path) -> dict[str, tuple[int, str | None]]:
    """Of every stage that is remembered: when it was written, and what."""
    paths = (folder / ".stages").glob("*.json")
    return {path.stem: (path.stat().st_mtime_ns, sha256_of(path)) for path in paths}


def no_model(name: str) -> None:
    pytest.fail(f"{name} was loaded, and nothing was to be computed")


# --- the folder -------------------------------------------------------------------------------------


def test_a_run_writes_the_files_of_the_design(whole: Path) -> None:
    own = (".lock", ".stages", "answers")  # how it goes on where it stopped
    found = {str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file()}
    assert {name for name in found if name.split("/")[0] not in own} == set(FILES)
    assert set(memos(whole)) == STAGES


@pytest.mark.parametrize("name", [name for name, fields in FILES.items() if fields])
def test_every_file_has_the_fields_that_others_rely_on(whole: Path, name: str) -> None:
    text = (whole / name).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if name.endswith("l") else [json.loads(text)]
    if name == "train/metrics.jsonl":
        held = [row for row in rows if "validation_loss" in row]
        assert len(held) == 6
        assert all(row["validation_score"] is None for row in held)
        rows = [row for row in rows if "loss" in row]
    for row in rows:
        assert set(FILES[name]) <= set(row)


def test_the_resolved_recipe_is_the_recipe(home: Path, whole: Path) -> None:
    assert luthier.load_recipe(whole / "recipe.yaml") == luthier.load_recipe(home / "recipe.yaml")


def test_the_manifest_tells_where_every_example_went(home: Path, whole: Path) -> None:
    manifest = json.loads((whole / "data/manifest.json").read_text())
    (source,) = manifest["sources"]
    assert source["file"] == str(home / "tickets.jsonl")
    assert source["sha256"] == sha256_of(home / "tickets.jsonl")
    assert (source["examples"], source["left_out"]) == (60, 0)
    assert sum(side["examples"] for side in manifest["sides"].values()) == 60
    for side, told in manifest["sides"].items():
        assert told["sha256"] == sha256_of(whole / f"data/{side}.jsonl")


def test_the_tuned_model_learned_and_the_scores_are_those_of_the_answers(whole: Path) -> None:
    scores = json.loads((whole / "scores.json").read_text())
    assert scores["candidates"]["tuned"]["score"] > 0.5 > scores["candidates"]["prompt"]["score"]
    for name, row in scores["candidates"].items():
        lines = [json.loads(x) for x in (whole / f"predictions/{name}.jsonl").read_text().splitlines()]
        right = [line["answer"].strip() == line["reference"] for line in lines]
        assert row["score"] == pytest.approx(sum(right) / len(right))
        assert row["n"] == len(lines)
    assert scores["candidates"]["scratch"]["prompt_tokens"] is None
    few, plain = (scores["candidates"][name]["prompt_tokens"] for name in ("few_shot", "prompt"))
    assert few > plain == scores["candidates"]["tuned"]["prompt_tokens"]


def test_the_adapter_loads_in_peft(home: Path, whole: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(whole / "adapter")
    assert json.loads((whole / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == str(
        home / "model"
    )
    assert model.peft_config["default"].r == 4


# --- what is computed again -------------------------------------------------------------------------


def test_a_second_run_computes_nothing(home: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luthier.models, "load_model", no_model)
    before, found = memos(finished), tiny_run.outcome(finished)
    started = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    open_run(home, finished).all()
    assert memos(finished) == before
    assert tiny_run.outcome(finished) == found
    written = {p.name for p, at in started.items() if p.stat().st_mtime_ns != at}
    assert written <= {".lock", "verdict.json", "card.md", "report.html"}


PROBES = {f"{work}-{probe}" for work in ("measure", "probe") for probe in ("forgetting", "own_text")}
ANSWERS = {f"answer-{name}" for name in ("prompt", "few_shot", "retrieval", "tuned")}
GRADED = {"grade", "failures"}
CALIBRATED = {"validation-tuned", "calibrate"}
AFTER_TRAINING = {"doubt", "answer-tuned"} | GRADED | CALIBRATED | PROBES
CHANGES = [
    ({"name": "other"}, set()),
    ({"gates": {"min_gain": 0.5}}, set()),
    ({"gates": {"max_forgetting": 0.5, "max_drift": 0.1}}, {"probe-forgetting", "probe-own_text"}),
    ({"shots": 3}, {"answer-few_shot", "answer-retrieval"} | GRADED),
    ({"max_new_tokens": 3}, ANSWERS | GRADED | CALIBRATED),
    ({"probe_items": 9}, {"measure-forgetting", "probe-forgetting"}),
    ({"grader": "string_check"}, {"answer-scratch", "audit"} | GRADED | CALIBRATED),
    ({"train": {"epochs": 1, "learning_rate": 0.01, "batch_tokens": 400}}, {"train"} | AFTER_TRAINING),
    ({"system": "Judge."}, {"audit", "train"} | ANSWERS | AFTER_TRAINING),
    ({"seed": 1}, STAGES),
]


@pytest.mark.parametrize(("changes", "again"), CHANGES, ids=[next(iter(c)) for c, _ in CHANGES])
def test_a_change_computes_only_what_depends_on_it(
    home: Path, finished: Path, changes: dict[str, Any], again: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if again <= {"probe-forgetting", "probe-own_text"}:
        monkeypatch.setattr(luthier.models, "load_model", no_model)  # another gate needs no model
    before = memos(finished)
    open_run(home, finished, **changes).all()
    after = memos(finished)
    assert {name for name in after if after[name][0] != before[name][0]} == again
    assert set(after) == STAGES


def test_other_gates_decide_anew(home: Path, finished: Path) -> None:
    def gate(verdict: dict[str, Any], name: str) -> dict[str, Any]:
        return next(gate for gate in verdict["gates"] if gate["name"] == name)

    run = open_run(home, finished, gates={"min_gain": 0.02, "max_forgetting": 1.0})
    forgetting = gate(run.all(), "forgetting")
    assert (forgetting["threshold"], forgetting["passed"]) == (1.0, True)
    text = (finished / "card.md").read_text()
    assert gate(run.verdict(min_gain=0.9), "gain")["threshold"] == 0.9
    assert gate(run.record.read_json("verdict.json"), "gain")["threshold"] == 0.02  # was not written
    assert (finished / "card.md").read_text() == text


def test_examples_that_changed_change_everything(home: Path, finished: Path, tmp_path: Path) -> None:
    before = memos(finished)
    text = (home / "tickets.jsonl").read_text()
    (tmp_path / "tickets.jsonl").write_text(text.replace("carpet", "rug"))
    run = open_run(home, finished, data=str(tmp_path / "tickets.jsonl"), candidates=["scratch"])
    run.evaluate()
    after = memos(finished)
    assert {name for name in after if after[name][0] != before[name][0]} == {
        "split",
        "answer-scratch",
        *GRADED,
    }


def test_no_result_outlives_what_it_was_made_from(home: Path, finished: Path) -> None:
    """A run that was killed after another recipe began must not be judged by the old recipe's scores."""
    run = open_run(home, finished, seed=1)
    run.split()
    assert not any((finished / name).exists() for name in ("verdict.json", "card.md", "report.html"))
    with pytest.raises(RecordError, match="luthier evaluate"):
        run.verdict()


def test_what_is_no_longer_asked_for_is_gone(home: Path, finished: Path) -> None:
    run = open_run(home, finished, candidates=["prompt", "tuned"], probes=["own_text"])
    verdict = run.all()
    assert [p.stem for p in tiny_run.predictions(finished)] == ["prompt", "tuned"]
    assert [p.name for p in (finished / "probes").iterdir()] == ["own_text.json"]
    assert [gate["name"] for gate in verdict["gates"]] == ["gain", "own_text", "data"]
    assert run.probe().keys() == {"own_text"}
    untuned = open_run(home, finished, candidates=["prompt", "scratch"])
    assert untuned.probe() == {}
    assert untuned.all()["decision"] == "inconclusive"


def test_the_environment_is_that_of_the_work(home: Path, finished: Path) -> None:
    path = finished / "environment.json"
    told = json.loads(path.read_text()) | {"python": "3.0"}
    path.write_text(json.dumps(told))
    open_run(home, finished).all()
    assert json.loads(path.read_text())["python"] == "3.0"  # nothing was computed in today's
    open_run(home, finished, shots=3).evaluate()
    assert json.loads(path.read_text())["python"] != "3.0"


# --- single steps -----------------------------------------------------------------------------------


def test_each_step_brings_what_it_needs(home: Path, tmp_path: Path, whole: Path) -> None:
    run = open_run(home, tmp_path / "run")
    summary = run.train()
    assert {*memos(run.record.path)} == {"split", "train", "doubt"}
    assert summary["epochs"] == 6
    probes = run.probe()
    assert {*memos(run.record.path)} == {"split", "train", "doubt"} | PROBES
    with pytest.raises(RecordError, match="not in this run folder yet"):
        run.verdict()
    scores = run.evaluate()
    expected = tiny_run.outcome(whole)
    assert probes == expected["probes"]
    assert tiny_run.without_times(scores) == expected["scores"]
    assert run.verdict()["decision"] == expected["decision"][0]


def test_a_folder_opens_without_its_recipe_file(finished: Path) -> None:
    run = Run.open(finished)
    assert run.recipe.name == "tickets"
    assert run.verdict()["gates"]
    assert [path.name for path in run.card()] == ["card.md", "report.html"]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such run folder\nFix: start one with: luthier run"):
        Run.open(tmp_path / "none")
    with pytest.raises(RecordError, match=r"holds no recipe\.yaml"):
        Run.open(tmp_path)


def test_sides_that_share_an_example_are_not_shipped(home: Path, tmp_path: Path) -> None:
    lines = (home / "tickets.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join(lines[:40]))
    (tmp_path / "b.jsonl").write_text("".join(lines[38:]))
    data = {"train": str(tmp_path / "a.jsonl"), "test": str(tmp_path / "b.jsonl")}
    run = open_run(home, tmp_path / "run", data=data, candidates=["scratch", "tuned"], probes=[])
    run.recipe = run.recipe.model_copy(update={"train": run.recipe.train.model_copy(update={"epochs": 1})})
    verdict = run.all()
    (gate,) = (gate for gate in verdict["gates"] if gate["name"] == "data")
    assert gate["passed"] is False
    assert verdict["decision"] == "do_not_ship"
    assert len(run.split().test) == 22


def test_too_few_examples_for_a_split(home: Path, tmp_path: Path) -> None:
    tiny_run.write_examples(tmp_path / "few.jsonl", 12)
    with pytest.raises(DataError, match=r"12 examples .* give train") as caught:
        open_run(home, tmp_path / "run", data=str(tmp_path / "few.jsonl")).split()
    assert len(str(caught.value).splitlines()) <= 3


def test_an_example_too_long_for_the_model_is_named(home: Path, tmp_path: Path) -> None:
    text = (home / "tickets.jsonl").read_text().replace("the lamp", "the " + "very " * 300 + "long lamp")
    (tmp_path / "long.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"long\.jsonl:\d+: an example of \d+ tokens does not fit .* 1024"):
        open_run(home, tmp_path / "run", data=str(tmp_path / "long.jsonl")).train()


def test_prompts_too_long_for_the_model_name_the_candidate(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"candidate few_shot: a prompt of .*\nFix: lower `shots`"):
        open_run(home, tmp_path / "run", shots=30, candidates=["few_shot"]).evaluate()


# --- export -----------------------------------------------------------------------------------------


def test_the_merged_model_gives_the_same_greedy_answers(finished: Path) -> None:
    run = Run.open(finished)
    folder = run.export()
    assert folder == finished / "export/merged"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = run.record.read_jsonl("predictions/tuned.jsonl")
    assert len({row["answer"] for row in rows}) > 1
    for row in rows:
        messages = [
            {"role": "system", "content": "Say good or bad."},
            {"role": "user", "content": row["input"]},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == row["prompt"]
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            written = model.generate(ids, max_new_tokens=14, do_sample=False, pad_token_id=0)
        answer = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        assert answer == row["answer"]
    assert run.tuned() is not None  # the base was let go of and is loaded afresh


def test_an_export_never_replaces_what_is_there(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/precious.txt").write_text("mine")
    with pytest.raises(RecipeError, match="already there, and not empty"):
        Run.open(finished).export(out=tmp_path / "models")
    assert (tmp_path / "models/precious.txt").read_text() == "mine"
    with pytest.raises(RecipeError, match="unknown format 'gguf'"):
        Run.open(finished).export("gguf")


def test_nothing_to_export_before_training(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter in this folder\nFix: train first: luthier train"):
        open_run(home, tmp_path / "run").export()


# --- runs that are killed ---------------------------------------------------------------------------

MOMENTS = [
    ("checking examples", 0),
    ("few_shot: answering", 0),
    ("scratch: training a linear model on n-grams", 0),
    ("tuned: training", 4),  # before the first checkpoint
    ("tuned: training", 15),  # between two
    ("tuned: answering", 1),
    ("rename scores.json", 0),
    ("forgetting: tuned", 1),
    ("rename verdict.json", 0),
]


# What the server imports once, so that its children start at once.
IMPORTED = (
    "pytest",
    "transformers.models.llama.modeling_llama",
    "luthier.audit",
    "luthier.candidates",
    "luthier.card",
    "luthier.evidence.evaluation",
    "luthier.methods",
    "luthier.models",
    "luthier.pipeline",
    "luthier.probes",
    "luthier.train",
    "luthier.verdict",
)


class Fatal:
    """Shows nothing, and kills its own process when `what` has advanced `steps` times."""

    def __init__(self, what: str, steps: int) -> None:
        self.what = what
        self.steps = steps

    def note(self, text: str) -> None:
        pass

    @contextlib.contextmanager
    def task(self, what: str, total: int | None) -> Iterator[Advance]:
        seen = 0

        def advance(done: int, detail: str = "", **more: Any) -> None:
            nonlocal seen
            seen += 1
            if (what, seen) == (self.what, self.steps):
                os.kill(os.getpid(), signal.SIGKILL)

        if (what, 0) == (self.what, self.steps):
            os.kill(os.getpid(), signal.SIGKILL)
        yield advance


def run_until(home: str, folder: str, what: str, steps: int) -> None:
    """In a process of its own: a run that does not survive the moment given."""
    luthier.probes.choice_items = tiny_run.choice_items
    torch.set_num_threads(1)
    if what.startswith("rename "):
        replace = Path.replace

        def fatal(self: Path, target: Path) -> Path:
            if target.name == what.removeprefix("rename "):
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)

        Path.replace = fatal  # type: ignore[method-assign, assignment]
    recipe = luthier.load_recipe(Path(home) / "recipe.yaml")
    Run(recipe, folder, Fatal(what, steps)).all()


def test_a_run_killed_at_many_moments_ends_like_one_that_was_not(
    home: Path, whole: Path, tmp_path: Path
) -> None:
    """SIGKILL of real processes, one after the other on the same folder."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(list(IMPORTED))
    folder = tmp_path / "run"
    done: set[str] = set()
    for what, steps in MOMENTS:
        process = processes.Process(target=run_until, args=(str(home), str(folder), what, steps))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, f"outlived {what} {steps}"
        assert done <= set(memos(folder))  # nothing that was finished is lost
        done = set(memos(folder))
        assert "train" in done or not (folder / "train/summary.json").exists()
    assert STAGES - done == set()
    assert (folder / "scores.json").is_file()
    assert not (folder / "verdict.json").exists()
    open_run(home, folder).all()
    assert tiny_run.outcome(folder) == tiny_run.outcome(whole)
    leftovers = [p.name for p in folder.rglob("*") if ".writing" in p.name or p.name.endswith(".old")]
    assert leftovers == []
