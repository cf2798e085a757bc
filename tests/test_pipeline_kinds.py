"""Whole runs that differ only in `adapter:`: every kind is trained, saved, answered with and probed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from peft import PeftModel
from transformers import AutoModelForCausalLM

import luthier
import luthier.models
import luthier.probes
from luthier.cli import talking
from luthier.errors import ModelError
from luthier.models.held import is_exact
from luthier.pipeline import Run

CASES: dict[str, dict[str, Any]] = {
    "prefix": {"kind": "prefix", "virtual_tokens": 4},
    "prompt": {"kind": "prompt", "virtual_tokens": 4},
    "full": {"kind": "full"},
    "int8": {"kind": "lora", "rank": 4, "base": "int8"},
    "rslora": {"kind": "rslora", "rank": 4},
    "dora": {"kind": "dora", "rank": 4},
    "last layer": {"kind": "lora", "rank": 4, "layers": "last 1"},
    "full, last layer": {"kind": "full", "layers": [1]},
    "prefix on int8": {"kind": "prefix", "base": "int8"},
}
FAST = ("prefix", "prompt", "full", "int8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kinds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            candidates=["prompt", "tuned"],
            train={"epochs": 2, "learning_rate": 0.01, "batch_tokens": 400, "replay": 0.0},
        )
        yield folder


def open_run(home: Path, name: str) -> Run:
    return Run(
        luthier.load_recipe(home / "recipe.yaml", {"adapter": CASES[name]}), home / name.replace(" ", "-")
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def answers(folder: Path, candidate: str) -> list[str]:
    lines = (folder / f"predictions/{candidate}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines]


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_run_of_every_kind(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(home, name)
    verdict = run.all()
    folder, asked = run.record.path, CASES[name]
    assert verdict["decision"] in ("ship", "do_not_ship", "inconclusive")
    summary = read(folder / "train/summary.json")
    assert summary["adapter"]["kind"] == asked["kind"]
    assert summary["adapter_bytes"] > 0
    base, tuned = (answers(folder, who) for who in ("prompt", "tuned"))
    assert base != tuned
    for probe in ("forgetting", "own_text"):
        told = read(folder / f"probes/{probe}.json")
        assert told["finding"] != "failed"
        assert told["base"] != told["tuned"]
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert (asked["kind"] == "full") == ("library_name: transformers" in card)
    # what is saved is what was measured
    again = Run.open(folder)
    with monkeypatch.context() as patch:
        patch.setattr(luthier.models, "attach_adapter", lambda *a, **k: pytest.fail("trained again"))
        again.all()
    model = again.tuned()
    assert isinstance(model, PeftModel) == (asked["kind"] != "full")
    assert is_exact(model)
    (folder / ".stages/answer-tuned.json").unlink()
    again.evaluate()
    assert tuned == answers(folder, "tuned")


def test_the_base_is_the_same_whatever_is_trained(home: Path) -> None:
    """Base results are kept by the base's identity: none of the kinds may have measured another base."""
    told = []
    for name in FAST:
        run = open_run(home, name)
        run.all()
        with run.models.untuned() as model:
            told.append(
                [
                    model,
                    *(read(run.record.path / f"probes/{p}.json")["base"] for p in ("forgetting", "own_text")),
                ]
            )
    assert len({tuple(row[1:]) for row in told}) == 1
    texts = []
    for name in FAST:
        run = open_run(home, name)
        with run.models.untuned() as model:
            texts.append(talk(model, run))
    assert len(set(map(tuple, texts))) == 1


def talk(model: Any, run: Run) -> list[str]:
    from luthier.candidates import ask

    messages = run.chat.with_system(
        [{"role": "user", "content": "No. 5: the clock was broken"}], "Say good or bad."
    )
    return [a.answer for a in ask(model, run.chat, {"": messages}, max_new_tokens=6)]


def test_what_full_fine_tuning_saves_is_a_model(home: Path) -> None:
    run = open_run(home, "full")
    run.all()
    saved = run.record.path / "adapter"
    assert AutoModelForCausalLM.from_pretrained(saved).num_parameters() > 0
    assert not (saved / "adapter_config.json").exists()
    tuned, base = run.tuned(), run.base().model
    assert run.tuned() is tuned  # asking for the base does not let go of it
    assert any(not p.equal(q) for p, q in zip(tuned.parameters(), base.parameters(), strict=True))
    card = (run.record.path / "card.md").read_text(encoding="utf-8")
    assert 'AutoModelForCausalLM.from_pretrained("adapter")' in card
    assert "PeftModel" not in card
    exported = run.export()
    assert (exported / "config.json").is_file()


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_virtual_tokens_are_not_exported_as_a_model(home: Path, name: str) -> None:
    run = open_run(home, name)
    run.all()
    with pytest.raises(ModelError, match="cannot be merged"):
        run.export()
    run.tuned()  # the failed merge left nothing behind


def test_another_kind_in_the_same_folder_replaces_the_first(home: Path, tmp_path: Path) -> None:
    for kind, file in (("full", "config.json"), ("prompt", "adapter_config.json")):
        run = Run(luthier.load_recipe(home / "recipe.yaml", {"adapter": {"kind": kind}}), tmp_path / "run")
        run.train()
        assert (tmp_path / "run/adapter" / file).is_file()
    assert not (tmp_path / "run/adapter/config.json").exists()


def test_base_and_tuned_talk_side_by_side(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("full", "prompt"):
        run = open_run(home, name)
        run.all()
        said: dict[bool, str] = {}
        for adapted in (False, True):
            history = [{"role": "user", "content": "No. 5: the clock from the attic was broken"}]
            said[adapted] = talking._reply(run, history, adapted=adapted)
        assert said[False] != said[True]
