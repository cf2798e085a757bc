"""All probes in whole runs on a tiny model: files, what is computed again, what crashes, what decides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run

import luthier
import luthier.models
import luthier.probes
from luthier.errors import AssetError, RecipeError
from luthier.pipeline import Run, probing
from luthier.probes import stereotypes
from luthier.probes.fact_items import facts
from luthier.recipe import parse_recipe, recipe_schema
from luthier.recipe.probe_options import PROBE_NAMES

FIELDS = {
    *("probe", "n", "base", "tuned", "difference", "low", "high", "flips", "margin", "finding", "reason"),
    "examples",
}
ITEMS = [
    {
        "set": "made up",
        "source": "made up",
        "before": "It rains.",
        "choices": [" yes", " no"],
        "counted": [0],
        "preference": False,
    }
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("probing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        patch.setattr(stereotypes, "stereotype_items", lambda count: ITEMS * 3)
        patch.setattr("luthier.probes.facts.facts", lambda: facts()[:24])
        patch.setattr("luthier.probes.refusal.TOKENS", 8)
        changes = {"probes": "all", "canaries": 3, "candidates": ["prompt", "tuned"]}
        changes["train"] = {"epochs": 1, "learning_rate": 0.01, "batch_tokens": 2000, "replay": 0}
        tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"), **changes)
        yield folder


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    open_run(home, home / "run").all()
    return home / "run"


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def open_run(home: Path, folder: Path, **changes: Any) -> Run:
    return Run(luthier.load_recipe(home / "recipe.yaml", changes), folder)


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"probes/{name}.json").read_text(encoding="utf-8"))
    return found


def times(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (folder / ".stages").glob("*.json")}


# --- the recipe -------------------------------------------------------------------------------------


def test_all_stands_for_every_probe() -> None:
    raw = {"model": "m", "data": "d.jsonl"}
    assert parse_recipe(raw, base=Path()).probes == ("forgetting", "own_text")
    assert parse_recipe(raw | {"probes": "all"}, base=Path()).probes == PROBE_NAMES
    for wrong in (["bias", "bias"], ["bais"], "every"):
        with pytest.raises(RecipeError, match="probes"):
            parse_recipe(raw | {"probes": wrong}, base=Path())
    assert {"const": "all", "type": "string"} in recipe_schema()["properties"]["probes"]["anyOf"]


def test_the_table_has_every_probe() -> None:
    assert tuple(probing.PROBES) == PROBE_NAMES


# --- a run ------------------------------------------------------------------------------------------


def test_every_probe_is_measured_and_reported(whole: Path) -> None:
    assert {path.stem for path in (whole / "probes").iterdir()} == set(PROBE_NAMES)
    for name in PROBE_NAMES:
        report = read(whole, name)
        assert set(report) >= FIELDS, name
        assert report["probe"] == name
        assert report["finding"] in ("worse", "within_margin", "not_powered"), (name, report["reason"])
        assert report["n"] > 0 and report["difference"] is not None
        assert len(report["examples"]) <= 3 or name == "forgetting"
    parts = {row["part"] for row in read(whole, "memorization")["parts"]}
    assert {f"canaries seen {times} an epoch" for times in ("once", "4 times", "16 times")} <= parts


def test_canaries_are_trained_along_and_are_no_examples(whole: Path) -> None:
    summary = json.loads((whole / "train/summary.json").read_text())
    train = (whole / "data/train.jsonl").read_text().splitlines()
    assert summary["examples"] == len(train)
    assert summary["trained_tokens"] > 21 * 20  # 1 + 4 + 16 sentences of more than 20 tokens


def test_a_trend_decides_nothing_and_every_other_probe_is_a_gate(whole: Path) -> None:
    verdict = json.loads((whole / "verdict.json").read_text())
    names = [gate["name"] for gate in verdict["gates"]]
    assert names == ["gain", *(name for name in PROBE_NAMES if name != "kl"), "data"]
    assert "a trend without a margin, which the verdict leaves aside" in read(whole, "kl")["reason"]


def test_a_trend_that_has_not_run_decides_nothing(home: Path, finished: Path) -> None:
    for name in ("kl", "facts"):
        (finished / f"probes/{name}.json").unlink()
    gates = {gate["name"]: gate for gate in open_run(home, finished).verdict()["gates"]}
    assert "kl" not in gates
    assert (gates["facts"]["passed"], gates["facts"]["reason"]) == (None, "this probe has not run")


def test_card_and_report_show_every_probe(whole: Path) -> None:
    card, page = ((whole / name).read_text(encoding="utf-8") for name in ("card.md", "report.html"))
    for name in PROBE_NAMES:
        plain = name.replace("_", " ")
        assert f"| {plain} |" in card and f"{plain.capitalize()} <span" in page
    assert "training examples told from held-out ones by loss" in card
    assert "bits of exposure" in page and "a trend, without a margin" in card
    assert "Nothing was probed" not in page
    example = next(e for e in read(whole, "own_text")["examples"])["text"]
    assert example[:20] not in card  # a card is published: no texts in it


def test_other_margins_need_no_model(home: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luthier.models, "load_model", lambda name: pytest.fail(f"{name} was loaded"))
    before = times(finished)
    gates = {"max_kl": 3.0, "max_bias": None, "max_overfit": 9.0}
    verdict = open_run(home, finished, gates=gates).all()
    after = times(finished)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"probe-kl", "probe-bias", "probe-overfitting"}
    names = [gate["name"] for gate in verdict["gates"]]
    assert "kl" in names and "bias" not in names
    assert read(finished, "overfitting")["margin"] == 9.0


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"canaries": 3, "max_new_tokens": 3}, {"bias", "robustness", "overfitting"}),
        ({"probe_items": 9}, {"forgetting"}),
    ],
)
def test_a_change_measures_only_what_depends_on_it(
    home: Path, finished: Path, changes: dict[str, Any], again: set[str]
) -> None:
    before = times(finished)
    open_run(home, finished, **changes).probe()
    after = times(finished)
    assert {name for name in after if after[name] != before[name] and name.startswith("measure-")} == {
        f"measure-{name}" for name in again
    }


# --- crashes ----------------------------------------------------------------------------------------


def broken(count: int) -> Any:
    raise AssetError("the suites are out of reach")


def test_a_probe_that_crashes_is_failed_and_the_run_goes_on(
    home: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured anew, because the number of items changed; and the tries are counted."""
    tries = []

    def crash(*_: Any) -> Any:
        tries.append(1)
        raise RuntimeError("no  such\nthing")

    with monkeypatch.context() as patch:
        patch.setattr(luthier.probes, "choice_items", broken)
        run = open_run(home, finished, probe_items=10)
        verdict = run.all()
        failed = read(finished, "forgetting")
        assert (failed["finding"], failed["margin"], failed["difference"]) == ("failed", 0.02, None)
        assert failed["reason"] == "it did not run to its end: the suites are out of reach"
        gate = next(gate for gate in verdict["gates"] if gate["name"] == "forgetting")
        assert gate["passed"] is None and verdict["decision"] != "ship"
        assert read(finished, "facts")["finding"] != "failed"
        patch.setattr(luthier.probes, "choice_items", crash)
        assert run.probe()["forgetting"] == failed and not tries  # one process tries once
        again = open_run(home, finished, probe_items=10).probe()
        assert tries and again["forgetting"]["reason"].endswith("RuntimeError: no such thing")
    assert open_run(home, finished, probe_items=10).probe()["forgetting"]["n"] == 10  # and the next one
    assert not (finished / "verdict.json").exists()  # it told of the failure
