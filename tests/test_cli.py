"""The commands as a user types them: what they print, their exit codes, and every mistake in three lines."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny_run
import yaml
from typer.testing import CliRunner, Result

import luthier
import luthier.probes
from luthier import __version__
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.pipeline import Run
from luthier.record import write_json

Luthier = Callable[..., Result]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, examples, a recipe, and its finished run in `run`."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        recipe = tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"))
        Run(luthier.load_recipe(recipe), folder / "run").all()
        yield folder


@pytest.fixture
def luthier_(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Luthier:
    """Run a command in an empty folder; a bug's own exception is a failure of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 100)

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(home / "run", tmp_path / "run")
    return tmp_path / "run"


def refused(result: Result, code: int, *told: str) -> None:
    """The command failed with this code, in one to three lines that say all of `told`."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("luthier: ")
    assert "Traceback" not in result.output
    for text in told:
        assert text in result.stderr


# --- the main job -----------------------------------------------------------------------------------


def test_run_ends_with_table_verdict_and_paths(luthier_: Luthier, home: Path, folder: Path) -> None:
    result = luthier_("run", home / "recipe.yaml", "--out", folder)
    decision = json.loads((folder / "verdict.json").read_text())["decision"]
    assert result.exit_code == {"ship": 0, "do_not_ship": 3, "inconclusive": 4}[decision]
    for name in ("prompt", "few_shot", "retrieval", "scratch", "tuned"):
        assert name in result.stdout
    for text in ("held-out examples, 95% intervals", "p (Holm)", "Forgetting: ", "Own text: ", "gain: "):
        assert text in result.stdout
    lines = result.stdout.splitlines()
    assert lines[-2:] == [f"Card:   {folder / 'card.md'}", f"Report: {folder / 'report.html'}"]


def test_run_without_out_writes_beside_where_you_are(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    recipe = tiny_run.write_recipe(
        tmp_path / "work", home / "model", candidates=["prompt", "scratch"], probes=[]
    )
    result = luthier_("run", recipe)
    assert result.exit_code == 4
    assert "Nothing was tuned" in result.stdout
    assert (tmp_path / "runs/tickets/report.html").is_file()


def test_the_steps_one_by_one(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    recipe = tiny_run.write_recipe(
        tmp_path / "work", home / "model", candidates=["prompt", "tuned"], probes=["own_text"]
    )
    out = tmp_path / "steps"
    checked = luthier_("check", recipe, "--out", out)
    assert checked.exit_code == 0
    assert "60 examples: 0 errors" in checked.stdout
    split = luthier_("split", recipe, "--out", out)
    assert [line.split()[0] for line in split.stdout.splitlines()] == ["train", "validation", "test"]
    trained = luthier_("train", recipe, "--out", out)
    assert "best at step" in trained.stdout
    assert "held-out examples can show" in trained.stdout  # before training starts
    scored = luthier_("evaluate", out)
    assert "tuned is better by" in scored.stdout
    probed = luthier_("probe", out)
    assert probed.stdout.count("Own text: ") == 1
    decided = luthier_("verdict", out)
    assert decided.exit_code in (0, 3, 4)
    assert [Path(line).name for line in luthier_("card", out).stdout.split()] == ["card.md", "report.html"]
    before = (out / "predictions/tuned.jsonl").read_bytes()
    assert luthier_("run", out).exit_code == decided.exit_code
    assert (out / "predictions/tuned.jsonl").read_bytes() == before


SHIP = {"gain": (0.2, 0.1, 0.3, 0.001), "finding": "within_margin"}
DECISIONS = [
    (SHIP, 0, "SHIP"),
    (SHIP | {"gain": (-0.2, -0.3, -0.1, 0.001)}, 3, "DO NOT SHIP"),
    (SHIP | {"gain": (0.1, -0.05, 0.25, 0.2)}, 4, "INCONCLUSIVE"),
    (SHIP | {"finding": "worse"}, 3, "DO NOT SHIP"),
    (SHIP | {"finding": "not_powered"}, 4, "INCONCLUSIVE"),
]


@pytest.mark.parametrize(("found", "code", "word"), DECISIONS)
def test_the_exit_code_is_the_decision(
    luthier_: Luthier, folder: Path, found: dict[str, Any], code: int, word: str
) -> None:
    scores = json.loads((folder / "scores.json").read_text())
    keys = ("difference", "low", "high", "p_adjusted")
    for pair in scores["paired"]:
        pair |= dict(zip(keys, found["gain"], strict=True))
    for candidate in scores["candidates"].values():
        candidate |= {"score": 0.5, "low": 0.3, "high": 0.7}  # with room for a gain
    write_json(folder / "scores.json", scores | {"constant": None})
    for name in ("forgetting", "own_text"):
        probe = json.loads((folder / f"probes/{name}.json").read_text())
        write_json(folder / f"probes/{name}.json", probe | {"finding": found["finding"]})
    result = luthier_("verdict", folder)
    assert result.exit_code == code
    assert f" {word} " in result.stdout


def test_verdict_with_another_gate(luthier_: Luthier, folder: Path) -> None:
    text = (folder / "verdict.json").read_text()
    assert "90.0%" in luthier_("verdict", folder, "--min-gain", 0.9).stdout
    assert (folder / "verdict.json").read_text() == text
    assert luthier_("verdict", folder, "--min-gain", 5).exit_code == 2


def test_chat_answers_with_base_and_tuned(luthier_: Luthier, folder: Path) -> None:
    result = luthier_("chat", folder, "No. 5: the clock from the attic was broken")
    assert result.exit_code == 0
    assert " base " in result.stdout
    assert " tuned " in result.stdout


def test_a_conversation_ends_with_an_empty_line(
    luthier_: Luthier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["the lamp was lovely", "/new", ""])
    monkeypatch.setattr("rich.prompt.Prompt.ask", lambda *_, **__: next(said))
    result = luthier_("chat", folder)
    assert result.exit_code == 0
    assert result.stdout.count(" tuned ") == 1


def test_export_says_where(luthier_: Luthier, folder: Path, tmp_path: Path) -> None:
    result = luthier_("export", folder, "--format", "merged", "--out", tmp_path / "merged")
    assert result.stdout.splitlines()[-1] == str(tmp_path / "merged")
    assert (tmp_path / "merged/model.safetensors").is_file()


def test_check_shows_the_mask(luthier_: Luthier, home: Path) -> None:
    result = luthier_("check", home / "tickets.jsonl", "--show-mask", "--model", home / "model")
    assert result.exit_code == 0
    assert "60 examples, read as" in result.stdout
    assert f"{home / 'tickets.jsonl'}:1: " in result.stdout.replace("\n", "")
    assert "tokens are trained" in result.stdout
    assert "<|im_start|>assistant" in result.stdout


def test_init_writes_a_recipe_that_works(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    shutil.copy(home / "tickets.jsonl", tmp_path / "2024.jsonl")
    result = luthier_("init", "2024.jsonl")
    assert result.stdout == "Wrote 2024.yaml. Read it, then: luthier run 2024.yaml\n"
    text = (tmp_path / "2024.yaml").read_text()
    recipe = luthier.load_recipe(tmp_path / "2024.yaml")
    assert (recipe.name, recipe.model, recipe.grader) == ("2024", "smollm2-135m", "label")
    assert recipe.data.train == str(tmp_path / "2024.jsonl")
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert sum("#" in line for line in settings) > len(settings) / 2  # most choices are explained
    (tmp_path / "2024.yaml").write_text(text.replace("smollm2-135m ", str(home / "model") + " "))
    assert luthier_("check", "2024.yaml").exit_code == 0
    refused(luthier_("init", "2024.jsonl"), 2, "already there", "--force")
    assert luthier_("init", "2024.jsonl", "--force").exit_code == 0


def test_init_from_elsewhere_names_the_data_relative_to_the_recipe(
    luthier_: Luthier, home: Path, tmp_path: Path
) -> None:
    name = "it's: odd #1.jsonl"
    (tmp_path / "data").mkdir()
    shutil.copy(home / "tickets.jsonl", tmp_path / "data" / name)
    luthier_("init", tmp_path / "data" / name, "--out", tmp_path / "mine.yaml")
    recipe = luthier.load_recipe(tmp_path / "mine.yaml")
    assert recipe.name == "mine"
    assert recipe.data.train == str(tmp_path / "data" / name)
    assert "luthier run mine.yaml" in (tmp_path / "mine.yaml").read_text()


def test_schema_is_for_editors(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    schema = json.loads(luthier_("schema").stdout)
    jsonschema.validate(yaml.safe_load((home / "recipe.yaml").read_text()), schema)
    luthier_("schema", "--out", tmp_path / "deep/recipe.schema.json")
    assert json.loads((tmp_path / "deep/recipe.schema.json").read_text()) == schema


def test_version_and_doctor(luthier_: Luthier, home: Path) -> None:
    assert luthier_("--version").stdout == f"{__version__}\n"
    doctor = luthier_("doctor").stdout
    for text in ("torch", "cpu", "memory", "asset smollm2-135m", "missing", "luthier doctor --fetch"):
        assert text in doctor


# --- mistakes ---------------------------------------------------------------------------------------


def test_a_missing_recipe_run_or_file(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    refused(luthier_("run", "none.yaml"), 2, "none.yaml: no such recipe", "luthier init")
    refused(luthier_("run", home / "tickets.jsonl"), 2, "file of examples, not a recipe", "luthier init")
    refused(luthier_("verdict", "runs/none"), 1, "runs/none: no such run folder", "luthier run recipe.yaml")
    refused(luthier_("card", tmp_path), 1, "not a run folder")
    refused(luthier_("check", "none.jsonl"), 1, "none.jsonl: no such file")
    refused(luthier_("init", "none.csv"), 1, "none.csv: no such file")


def test_a_step_before_what_it_needs(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    assert luthier_("split", home / "recipe.yaml", "--out", "fresh").exit_code == 0
    refused(luthier_("verdict", "fresh"), 1, "not in this run folder yet", "luthier evaluate fresh")
    refused(luthier_("chat", "fresh", "hi"), 1, "no adapter in this folder", "luthier train")
    refused(luthier_("export", "fresh"), 1, "no adapter in this folder", "luthier train")


def test_out_with_a_run_folder_is_not_passed_over(luthier_: Luthier, folder: Path, home: Path) -> None:
    refused(luthier_("run", folder, "--out", "elsewhere"), 2, "a run folder is written in place")
    refused(luthier_("check", home / "tickets.jsonl", "--out", folder), 2, "run folder", "luthier check")


def test_a_broken_line_is_named(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    recipe = tiny_run.write_recipe(tmp_path / "work", home / "model")
    data = tmp_path / "work/tickets.jsonl"
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines[:16], '{"messages": [', *lines[16:]]))
    refused(luthier_("run", recipe), 1, f"{data}:17: ")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file(luthier_: Luthier, home: Path, tmp_path: Path, text: str) -> None:
    recipe = tiny_run.write_recipe(tmp_path / "work", home / "model")
    (tmp_path / "work/tickets.jsonl").write_text(text)
    refused(luthier_("run", recipe), 1, str(tmp_path / "work/tickets.jsonl"), "Fix: ")


def test_too_few_examples(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    recipe = tiny_run.write_recipe(tmp_path / "work", home / "model")
    tiny_run.write_examples(tmp_path / "work/tickets.jsonl", 9)
    refused(luthier_("run", recipe), 1, "9 examples in", "at least 8", "add examples")


def test_a_wrong_key_or_value(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    recipe = tiny_run.write_recipe(tmp_path / "work", home / "model", train={"epoch": 3})
    refused(luthier_("run", recipe), 2, "unknown key 'train.epoch'", "did you mean 'train.epochs'?")
    recipe = tiny_run.write_recipe(tmp_path / "work", home / "model", seed=-1)
    refused(luthier_("run", recipe), 2, str(recipe), "seed: ", "-1")
    assert not (tmp_path / "runs").exists()


def test_a_model_that_cannot_be_read(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(home / "model", tmp_path / "torn")
    (tmp_path / "torn/model.safetensors").write_bytes(b"torn")
    for name, told in (
        ("empty", "a folder without config.json is not a Transformers model"),
        ("none", "no such model folder"),
        ("torn", "cannot be loaded"),
    ):
        recipe = tiny_run.write_recipe(tmp_path / "work", tmp_path / name, candidates=["prompt"], probes=[])
        refused(luthier_("run", recipe, "--out", f"runs/{name}"), 1, told, str(tmp_path / name), "Fix: ")


def test_a_full_disk(luthier_: Luthier, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "scores.json").unlink()
    monkeypatch.setattr(os, "fsync", full)
    refused(luthier_("run", folder), 1, "no space left on the disk", "free some space")
    monkeypatch.undo()
    assert luthier_("evaluate", folder).exit_code == 0


def test_a_folder_in_use(luthier_: Luthier, folder: Path) -> None:
    with Run.open(folder).record.lock():
        refused(luthier_("run", folder), 1, "another luthier is working in this run folder")


def test_a_traceback_only_when_asked_for(luthier_: Luthier) -> None:
    for arguments in (("--debug", "run", "none.yaml"), ("run", "none.yaml", "--debug")):
        result = luthier_(*arguments)
        assert result.exit_code == 2
        assert "Traceback (most recent call last)" in result.stderr
        assert "luthier: none.yaml: no such recipe" in result.stderr
    assert "Traceback" not in luthier_("run", "none.yaml").output


def test_wrong_usage_is_2(luthier_: Luthier) -> None:
    assert luthier_("train").exit_code == 2
    assert luthier_("trian", "x").exit_code == 2
    assert "Exit codes: 0 ship" in luthier_("--help").stdout


def test_a_broken_rule_of_our_own_keeps_its_traceback(
    luthier_: Luthier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Run, "split", bug)
    with pytest.raises(ZeroDivisionError):
        luthier_("split", folder)


def test_ctrl_c_in_training_is_130_and_keeps_what_is_finished(home: Path, tmp_path: Path) -> None:
    """The real command in a process of its own, and the signal that a terminal sends."""
    changes = {"candidates": ["prompt", "tuned"], "probes": [], "train": {"epochs": 400, "batch_tokens": 400}}
    recipe = tiny_run.write_recipe(tmp_path / "work", home / "model", **changes)
    out = tmp_path / "run"
    # whoever runs the tests in the background may have had SIGINT ignored, which is inherited
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from luthier.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "run", recipe, "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        deadline = time.monotonic() + 240
        while not (out / "train/metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    lines = said.decode().strip().splitlines()
    assert lines[-1] == (
        "luthier: interrupted; what is finished is kept, the same command goes on from there"
    )
    assert "Traceback" not in said.decode()
    stages = {path.stem for path in (out / ".stages").glob("*.json")}
    assert {"audit", "split", "answer-prompt"} <= stages
    assert "train" not in stages
    assert list((out / "train/checkpoints").glob("step-*"))
