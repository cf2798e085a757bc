"""More training examples for one edge case: the held-out side stays, and the comparison tells what moved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from test_null_cases import LEARNS, remarks, write_rows
from typer.testing import CliRunner

import luthier
import luthier.probes
from luthier.cli.main import app
from luthier.errors import DataError, RecipeError
from luthier.pipeline import Run
from luthier.recipe import parse_recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, examples without the edge case, extra ones of it, and held-out ones of both."""
    folder = tmp_path_factory.mktemp("extra")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        tiny_run.write_model(folder / "model")
        write_rows(folder / "data.jsonl", remarks(80))
        write_rows(folder / "extra.jsonl", edge_cases(32, seed=2))
        sides = {"plain": remarks(20, seed=8), "edge": edge_cases(24, seed=9)}
        rows = [
            {"prompt": text, "completion": label, "form": form}
            for form, side in sides.items()
            for text, label in side
        ]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield folder


def edge_cases(n: int, seed: int) -> list[tuple[str, str]]:
    """Remarks whose telling word is in no other one."""
    words = {"good": "quaint", "bad": "musty"}
    return [(f"{text.rsplit(' ', 1)[0]} {words[label]}", label) for text, label in remarks(n, seed)]


def open_run(home: Path, folder: Path, **changes: Any) -> Run:
    plan = {
        "model": str(home / "model"),
        "data": str(home / "data.jsonl"),
        "system": "Say good or bad.",
        "grader": "label",
        "candidates": ["prompt", "tuned"],
        "probes": [],
        "split": {"validation": 0.1, "test": 0.4},
        **LEARNS,
    }
    return Run(parse_recipe(plan | changes, base=home, name="remarks"), folder)


def with_extra(home: Path, file: Path, **sides: str) -> dict[str, str]:
    return {"train": str(home / "data.jsonl"), "extra": str(file), **sides}


def test_the_edge_case_is_mended_and_nothing_held_out_has_moved(home: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    test = str(home / "test.jsonl")
    given = {"train": str(home / "data.jsonl"), "test": test}
    open_run(home, old, data=given, slices=["form"], candidates=["tuned"]).evaluate()
    more = with_extra(home, home / "extra.jsonl", test=test)
    open_run(home, new, data=more, slices=["form"], candidates=["tuned"]).evaluate()
    for side in ("test", "validation"):
        assert (old / f"data/{side}.jsonl").read_bytes() == (new / f"data/{side}.jsonl").read_bytes()
    told = CliRunner().invoke(app, ["compare", str(old), str(new), "--format", "json"])
    result = json.loads(told.stdout)
    assert (result["only_old"], result["only_new"]) == (0, 0)
    slices = {row["value"]: row for row in result["slices"]}
    assert slices["edge"]["changed"] == "better"
    assert slices["plain"]["changed"] != "worse"
    assert any(kind["known"] for kind in result["kinds"])
    shown = CliRunner().invoke(app, ["compare", str(old), str(new)]).stdout
    assert "Mended: " in shown
    assert "form edge (" in " ".join(shown.split())


def test_extra_examples_are_trained_on_and_told_of(home: Path, tmp_path: Path) -> None:
    run = open_run(home, tmp_path / "run", data=with_extra(home, home / "extra.jsonl"))
    without = open_run(home, tmp_path / "without").split()
    split = run.split()
    assert (split.validation, split.test) == (without.validation, without.test)
    assert split.train[: len(without.train)] == without.train
    assert len(split.train) == len(without.train) + 32
    manifest = run.record.read_json("data/manifest.json")
    assert manifest["method"].endswith("; 32 extra examples from extra.jsonl, all for training")
    assert [source["side"] for source in manifest["sources"]] == ["train", "extra"]
    everything = [example.id for side in split.sides().values() for example in side]
    assert len(set(everything)) == len(everything)


def test_extra_examples_are_checked_against_the_held_out_ones(home: Path, tmp_path: Path) -> None:
    """Also one that differs in casing alone; it has an id of its own all the same."""
    test = open_run(home, tmp_path / "clean").split().test
    leak = [(test[0].input, test[0].answer), (test[1].input.upper(), test[1].answer)]
    file = write_rows(tmp_path / "leak.jsonl", leak)
    run = open_run(home, tmp_path / "run", data=with_extra(home, file))
    leaks = [f for f in run.check()["findings"] if f["check"] == "leakage" and f["severity"] == "error"]
    assert [any(e["file"] == str(file) for e in leak["examples"]) for leak in leaks] == [True, True]
    assert run.split().train[-2].id == f"{test[0].id}-extra"
    clean = open_run(home, tmp_path / "no", data=with_extra(home, home / "extra.jsonl")).check()
    assert not [f for f in clean["findings"] if f["check"] == "leakage" and f["severity"] == "error"]


def test_a_group_is_not_torn_by_extra_examples(home: Path, tmp_path: Path) -> None:
    lines = (home / "data.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"group": f"g{i}"} for i, line in enumerate(lines)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = {"train": str(tmp_path / "data.jsonl")}
    held = open_run(home, tmp_path / "a", data=plan).split().test[0].group
    extra = tmp_path / "extra.jsonl"
    extra.write_text(
        json.dumps({"prompt": "the hammock, not rotten", "completion": "good", "group": held}) + "\n"
    )
    with pytest.raises(DataError, match=rf"extra\.jsonl:1: an extra example of group '{held}'"):
        open_run(home, tmp_path / "b", data=plan | {"extra": str(extra)}).split()


def test_extra_is_a_file_beside_train(home: Path) -> None:
    recipe = parse_recipe({"model": "m", "data": {"train": "a.jsonl", "extra": "b.jsonl"}}, base=home)
    assert recipe.data.extra == str(home / "b.jsonl")
    with pytest.raises(RecipeError, match=r"did you mean 'data\.extra'"):
        parse_recipe({"model": "m", "data": {"train": "a.jsonl", "extras": "b.jsonl"}}, base=home)
