"""The study of methods: what it asks for can be asked, what it measured is told, and taken up again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.methods import ANSWERS, METHODS, START, TRAIN, Outcome, read_outcomes, write_page
from bench.methods_apart import APART, Apart, read_apart, settings_of
from bench.results import append_outcome
from bench.workers import method, method_apart
from luthier.recipe.method_options import METHOD_SECTIONS, method_name
from luthier.recipe.recipe import Recipe

JOB = {"work": "runs/methods", "answers": ANSWERS, "start": START}


def outcome(name: str, settings: str = "ours") -> Outcome:
    return Outcome(
        name, settings, start=0.8, score=0.9, gain=0.1, gain_bounds=(0.05, 0.15), preferred=0.7,
        preferred_bounds=(0.6, 0.8), forgetting=0.01, forgetting_bounds=(-0.01, 0.03), drift=0.25,
        drift_bounds=(0.2, 0.3), length=40.4, steps=12, tokens=3400, seconds=65.4, memory=2_100_000_000,
        rate=2e-4, n=42,
    )  # fmt: skip


def apart(name: str, perplexity: tuple[float, float] | None) -> Apart:
    return Apart(
        name, settings_of(name, JOB), base=0.1, score=0.2, best="prompt", best_score=0.15, gain=0.05,
        gain_bounds=(0.02, 0.08), perplexity=perplexity, drift=None if perplexity is None else 0.05,
        drift_bounds=(None, None), steps=9, tokens=1000, seconds=30.0, memory=1_500_000_000, rate=1e-4, n=45,
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_that_writes_has_a_recipe_from_the_start_model(name: str, tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    changes = {"train": TRAIN, **METHODS[name]}
    recipe: Recipe = method.recipe_of(tmp_path, tmp_path / "start", changes)
    assert method_name(recipe.method) == name.split(",", maxsplit=1)[0]
    assert recipe.data.test is not None and Path(str(recipe.data.test)).name == "test.jsonl"
    assert recipe.candidates == ("prompt", "tuned")


@pytest.mark.parametrize("name", APART)
def test_every_method_with_its_own_task_has_a_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(work: Path, *_: object) -> Path:
        (work / "start-model").mkdir(exist_ok=True)
        return work / "start-model"

    def texts(path: Path, *_: object) -> Path:
        (path / "data.jsonl").write_text('{"text": "a"}\n')
        return path / "data.jsonl"

    monkeypatch.setattr(method_apart, "prepare_start", made)
    monkeypatch.setattr(method_apart, "_texts", texts)
    monkeypatch.setattr(method_apart, "_labelled", texts)
    recipe: Recipe = method_apart.recipe_of(tmp_path, {**JOB, "asked": APART[name]})
    assert method_name(recipe.method) == name.split(",", maxsplit=1)[0]
    assert "tuned" in recipe.candidates and "prompt" in recipe.candidates
    source = getattr(recipe.method, "source", None)
    assert source == (name.split(", ")[1] if name.startswith("distill") else None)


def test_no_method_is_left_out() -> None:
    measured = {name.split(",", maxsplit=1)[0] for name in (*METHODS, *APART)}
    assert measured == {"sft", *METHOD_SECTIONS}


def test_rows_are_taken_up_again_only_with_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "methods.jsonl"
    append_outcome(path, outcome("grpo"))
    append_outcome(path, outcome("dpo"))
    append_outcome(path, outcome("sft", settings="others"))
    append_outcome(path, apart("cpt", (20.0, 12.5)))
    assert list(read_outcomes(path, "ours")) == ["dpo", "grpo"]
    assert read_outcomes(path, "ours")["dpo"] == outcome("dpo")
    assert read_apart(path, JOB) == {"cpt": apart("cpt", (20.0, 12.5))}
    assert not read_apart(path, JOB | {"answers": ANSWERS + 1})


def test_the_page_has_each_figure_and_what_could_not_be_measured() -> None:
    page = write_page(
        {"dpo": outcome("dpo")},
        {
            "cpt": apart("cpt", (20.0, 12.5)),
            "classify": apart("classify", None),
            "sft, two tasks": replace(apart("sft, two tasks", None), tasks={"exams": 0.25, "mail": 0.15}),
        },
        {"ppo": "a worker ended"},
    )
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    assert "90.0" in rows["dpo"] and "+10.0 [+5.0, +15.0]" in rows["dpo"] and "+0.25" in rows["dpo"]
    assert "20.0 (exams 25.0, mail 15.0)" in rows["sft, two tasks"]
    assert "20.0 (perplexity 12.5)" in rows["cpt"] and "prompt 15.0" in rows["cpt"]
    assert "perplexity" not in rows["classify"] and "45 held out" in rows["classify"]
    assert "- ppo: not measured: a worker ended" in page
    assert json.dumps(page).count("SmolLM2-135M-Instruct as it comes") == 1
