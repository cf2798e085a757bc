"""The recipe: every key of the documentation, every mistake a user can make, the way there and back."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from luthier.demo import RECIPE
from luthier.errors import RecipeError
from luthier.recipe import (
    Recipe,
    digest,
    dump_recipe,
    load_recipe,
    parse_recipe,
    recipe_schema,
)

EVERY_KEY = """
name: tickets
model: smollm2-135m
data: tickets.jsonl
system: You are a clerk.
grader: json_schema
candidates: [prompt, few_shot, retrieval, scratch, tuned]
method: sft
adapter: {kind: lora, rank: 16}
train: {epochs: 3, learning_rate: auto, batch_tokens: 2048, max_minutes: null}
gates: {min_gain: 0.02, max_forgetting: 0.02}
seed: 0
"""
LEAST = {"model": "smollm2-135m", "data": "tickets.jsonl"}
READING = {"columns": {}, "bad_rows": "stop", "source": None, "licence": None}  # how files are read


def refused(changes: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(LEAST | changes, base=Path("/home/ada"), where="tickets.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.where == "tickets.yaml"
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 3
    return text


def test_accepts_every_documented_key(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(EVERY_KEY, encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.name == "tickets"
    assert recipe.data.model_dump() == {
        "train": str(tmp_path / "tickets.jsonl"),
        "validation": None,
        "test": None,
        "extra": None,
        **READING,
    }
    assert recipe.candidates == ("prompt", "few_shot", "retrieval", "scratch", "tuned")
    assert (recipe.adapter.kind, recipe.adapter.rank, recipe.train.learning_rate) == ("lora", 16, "auto")
    assert (recipe.gates.min_gain, recipe.gates.max_forgetting, recipe.seed) == (0.02, 0.02, 0)


def test_only_model_and_data_are_required() -> None:
    recipe = parse_recipe(LEAST, base=Path("/home/ada"), name="mine")
    assert recipe.name == "mine"
    assert recipe.train.epochs == 3
    for key in LEAST:
        with pytest.raises(RecipeError, match=f"missing key '{key}'"):
            parse_recipe({k: v for k, v in LEAST.items() if k != key}, base=Path())


def test_sides_can_be_files_of_their_own() -> None:
    files = {"train": "a.jsonl", "validation": "b.csv", "test": "/data/c.jsonl"}
    recipe = parse_recipe(LEAST | {"data": files}, base=Path("/home/ada"))
    assert recipe.data.model_dump() == {
        "train": "/home/ada/a.jsonl",
        "validation": "/home/ada/b.csv",
        "test": "/data/c.jsonl",
        "extra": None,
        **READING,
    }


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "models/mine").mkdir(parents=True)
    raw = LEAST | {"model": "models/mine", "answer_schema": "s.json", "grader": "python:g.py:grade"}
    recipe = parse_recipe(raw, base=tmp_path)
    assert recipe.model == str(tmp_path / "models/mine")
    assert recipe.answer_schema == str(tmp_path / "s.json")
    assert recipe.grader == f"python:{tmp_path / 'g.py'}:grade"
    # a hub id stays one
    assert parse_recipe(LEAST | {"model": "org/model"}, base=tmp_path).model == "org/model"


MISSPELT = [
    ({"modle": "x"}, "'modle'", "'model'"),
    ({"candidate": ["prompt"]}, "'candidate'", "'candidates'"),
    ({"data": {"trian": "x.jsonl"}}, "'data.trian'", "'data.train'"),
    ({"data": {"train": "x.jsonl", "tests": "y"}}, "'data.tests'", "'data.test'"),
    ({"adapter": {"ranks": 8}}, "'adapter.ranks'", "'adapter.rank'"),
    ({"train": {"epoch": 3}}, "'train.epoch'", "'train.epochs'"),
    ({"train": {"lerning_rate": 1e-4}}, "'train.lerning_rate'", "'train.learning_rate'"),
    ({"split": {"tset": 0.2}}, "'split.tset'", "'split.test'"),
    ({"gates": {"min_gian": 0.1}}, "'gates.min_gian'", "'gates.min_gain'"),
    ({"grader": {"kind": "numeric", "tolerence": 1}}, "'grader.tolerence'", "'grader.tolerance'"),
    (
        {"grader": {"kind": "pairwise", "endpoint": {"ulr": "x"}}},
        "'grader.endpoint.ulr'",
        "'grader.endpoint.url'",
    ),
]


@pytest.mark.parametrize(("changes", "wrong", "near"), MISSPELT)
def test_an_unknown_key_is_refused_with_the_nearest(changes: dict[str, Any], wrong: str, near: str) -> None:
    assert refused(changes) == f"tickets.yaml: unknown key {wrong}\nFix: did you mean {near}?"


def test_a_misspelt_required_key_is_told_before_the_missing_one() -> None:
    with pytest.raises(RecipeError, match="unknown key 'modle'\nFix: did you mean 'model'"):
        parse_recipe({"modle": "smollm2-135m", "data": "x.jsonl"}, base=Path())


def test_a_key_like_no_other_is_refused_with_all_that_are_known() -> None:
    assert "known keys here: kind, rank, alpha" in refused({"adapter": {"zzz": 1}})


@pytest.mark.parametrize("section", ["", "data", "adapter", "train", "split", "gates"])
@given(key=st.text(min_size=1, max_size=12))
def test_no_unknown_key_passes_at_any_depth(section: str, key: str) -> None:
    fields = {**Recipe.model_fields} if not section else {}
    if section == "data":
        raw: Any = {"train": "x.jsonl"}
        known = {"train", "validation", "test"}
    elif section:
        raw, known = {}, set(Recipe.model_json_schema()["$defs"][section.capitalize()]["properties"])
    else:
        raw, known = {}, set(fields)
    if key in known:
        return
    changes = {section: raw | {key: 1}} if section else {key: 1}
    assert "unknown key" in refused(changes)


JUDGE = {
    "kind": "rubric",
    "rubric": "Polite.",
    "endpoint": {"url": "https://api.example.com/v1/", "model": "j"},
}
WRONG = [
    ({"train": {"epochs": 0}}, "train.epochs: ", "got 0"),
    ({"train": {"epochs": "many"}}, "train.epochs: expected a whole number", "'many'"),
    ({"train": {"epochs": 2.5}}, "train.epochs: expected a whole number", "2.5"),
    ({"train": {"learning_rate": "fast"}}, "train.learning_rate: expected a number or auto", "'fast'"),
    ({"train": {"learning_rate": 3}}, "train.learning_rate: expected a rate between 0 and 1", "3"),
    ({"train": {"learning_rate": 0}}, "train.learning_rate: expected a rate", "0"),
    ({"train": {"max_minutes": float("inf")}}, "train.max_minutes: expected a finite number", "inf"),
    ({"train": {"max_minutes": float("nan")}}, "train.max_minutes: expected a finite number", "nan"),
    ({"train": 3}, "train: expected a mapping of keys", "3"),
    ({"split": {"test": 0.85}}, "split.test: ", "0.85"),
    ({"gates": {"max_forgetting": 0}}, "gates.max_forgetting: ", "0"),
    ({"candidates": "tuned"}, "candidates: expected a list", "'tuned'"),
    ({"candidates": ["prompt", "prompt"]}, "candidates: expected at least one, and none twice", "prompt"),
    ({"candidates": []}, "candidates: expected at least one", ""),
    ({"candidates": ["tunde"]}, "candidates.0: ", "did you mean 'tuned'?"),
    ({"method": "ddpo"}, "unknown method 'ddpo'; did you mean 'dpo'?", ""),
    ({"method": 3}, "method: expected a name, or a mapping such as {kind: dpo", "3"),
    ({"method": {"kind": "sft", "beta": 1}}, "sft has no options", ""),
    ({"method": {"kind": "dpo", "beta": 0}}, "method.beta: ", "0"),
    ({"method": {"kind": "dpo", "betta": 1}}, "unknown key 'method.betta'", "did you mean 'method.beta'?"),
    ({"method": {"kind": "dpo", "loss_type": "ipo", "label_smoothing": 0.1}}, "is not defined for", ""),
    ({"method": "dpo", "train": {"temper": [0.5, 1]}}, "which is not dpo's aim", ""),
    ({"grader": "lable"}, "unknown grader 'lable'; did you mean 'label'?", ""),
    ({"grader": "python:file.py"}, "unknown grader", "python:file.py:fn"),
    ({"grader": 5}, "grader: expected a name, or a mapping such as {kind: numeric", "5"),
    ({"grader": {"tolerance": 1}}, "grader: expected a name, or a mapping", ""),
    ({"grader": {"kind": "numerc"}}, "unknown grader 'numerc'; did you mean 'numeric'?", ""),
    ({"grader": {"kind": ["label"]}}, "unknown grader ['label']", ""),
    ({"grader": {"kind": "python:a.py:f"}}, "write `grader: python:a.py:f`", ""),
    ({"grader": {"kind": "numeric", "tolerance": "x"}}, "grader.tolerance: expected a number", "'x'"),
    ({"grader": {"kind": "numeric", "tolerance": -1}}, "grader.tolerance: ", "-1"),
    ({"grader": {"kind": "text_similarity", "metric": "chf"}}, "grader.metric: ", "did you mean 'chrf'?"),
    ({"grader": "rubric"}, "grader: expected a mapping: {kind: rubric", ""),
    ({"grader": {"kind": "rubric"}}, "missing key 'grader.rubric'", ""),
    ({"grader": {"kind": "pairwise"}}, "grader: expected a judge", "endpoint"),
    ({"grader": JUDGE | {"model": "m"}}, "grader: expected a judge", "either"),
    ({"grader": JUDGE | {"endpoint": 3}}, "grader.endpoint: expected a mapping of keys", "3"),
    ({"slices": ["a", "a"]}, "slices: ", "none twice"),
    ({"name": 2024}, "name: expected a text: put it in quotes", "2024"),
    ({"seed": -1}, "seed: ", "-1"),
    ({"split": {"validation": 0.45, "test": 0.5}}, "split: ", "a tenth for training"),
    ({"data": 5}, "data: expected a file, or {train: ..., validation: ..., test: ...}", "5"),
    ({"data": None}, "data: expected a file", "None"),
]


@pytest.mark.parametrize(("changes", "told", "received"), WRONG)
def test_a_wrong_value_names_key_and_value(changes: dict[str, Any], told: str, received: str) -> None:
    text = refused(changes)
    assert told in text
    assert received in text


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ({"url": "api.example.com"}, "grader.endpoint.url: expected an address"),
        ({"url": "ftp://api.example.com"}, "grader.endpoint.url: expected an address"),
        ({"url": "http://[x"}, "grader.endpoint.url: expected an address"),
        ({"url": "https://ada:secret@example.com"}, "a key belongs in the variable"),
        ({"url": "https://example.com/v1?key=1"}, "a key belongs in the variable"),
        ({"url": "http://example.com/v1", "key_env": "KEY"}, "unencrypted"),
        ({"url": "http://127.0.0.1.example.com/v1", "key_env": "KEY"}, "unencrypted"),
        ({"url": "https://example.com/v1", "key_env": "sk-123 456"}, "grader.endpoint.key_env: "),
    ],
)
def test_an_endpoint_that_is_wrong_or_would_leak_its_key(endpoint: dict[str, Any], told: str) -> None:
    assert told in refused({"grader": JUDGE | {"endpoint": {"model": "j"} | endpoint}})


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "http://127.0.0.1:1/v1", "https://e.com/v1"])
def test_a_key_may_go_where_nobody_listens(url: str) -> None:
    endpoint = {"url": url, "model": "j", "key_env": "KEY"}
    assert parse_recipe(LEAST | {"grader": JUDGE | {"endpoint": endpoint}}, base=Path()).grader


GRADERS = [
    "numeric",
    {"kind": "label"},
    {"kind": "string_check", "ignore_case": True},
    {"kind": "text_similarity", "metric": "rouge_l"},
    {"kind": "numeric", "tolerance": 0.01, "relative": True},
    JUDGE,
    {"kind": "pairwise", "model": "smollm2-135m", "labels": "labels.jsonl"},
]


@pytest.mark.parametrize("grader", GRADERS)
def test_a_grader_with_options_survives_a_dump(tmp_path: Path, grader: Any) -> None:
    recipe = parse_recipe(LEAST | {"grader": grader}, base=tmp_path, name="mine")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    written = yaml.safe_load(dump_recipe(recipe))["grader"]
    assert not list(jsonschema.Draft202012Validator(recipe_schema()).iter_errors(LEAST | {"grader": written}))
    if isinstance(grader, str):
        assert written == grader
        return
    assert written["kind"] == grader["kind"]
    if "labels" in grader:
        assert written["labels"] == str(tmp_path / "labels.jsonl")
    if "endpoint" in grader:
        assert written["endpoint"]["url"] == "https://api.example.com/v1"


def test_a_rate_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-4 as text."""
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ndata: d.jsonl\ntrain: {learning_rate: 1e-4}\n", encoding="utf-8")
    assert load_recipe(path).train.learning_rate == 1e-4


FILES = {
    "": "is empty",
    "- a\n- b\n": "expected `key: value` lines",
    "just words": "expected `key: value` lines",
    "model: [1, 2\n": "not valid YAML",
    "model: m\ndata: d.jsonl\nseed: 1\nmodel: n\n": "key 'model' is there twice",
}


@pytest.mark.parametrize(("text", "told"), FILES.items())
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) <= 3


def test_other_things_given_as_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no such recipe\nFix: .*luthier init"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="is a file of examples") as caught:
        load_recipe(tmp_path / "tickets.jsonl")
    assert f"luthier init {tmp_path / 'tickets.jsonl'}" in str(caught.value)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "bytes.yaml")


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ndata: d.jsonl\n", encoding="utf-8")
    assert load_recipe(path, {"seed": 7}).seed == 7
    with pytest.raises(RecipeError, match="did you mean 'seed'"):
        load_recipe(path, {"sed": 7})


@example(system="one\x85two\u2028three", rank=1, rate="auto", minutes=None, candidates=("tuned",), seed=0)
@given(
    system=st.none() | st.text(st.characters(codec="utf-8"), max_size=40),
    rank=st.integers(1, 1024),
    rate=st.just("auto") | st.floats(1e-9, 0.999),
    minutes=st.none() | st.floats(1e-3, 1e6),
    candidates=st.sampled_from([("tuned",), ("prompt", "tuned"), ("scratch",)]),
    seed=st.integers(0, 2**63),
)
def test_loading_what_was_dumped_gives_the_same_recipe(
    tmp_path_factory: pytest.TempPathFactory, **values: Any
) -> None:
    raw = LEAST | {
        "system": values["system"],
        "adapter": {"rank": values["rank"]},
        "train": {"learning_rate": values["rate"], "max_minutes": values["minutes"]},
        "candidates": list(values["candidates"]),
        "seed": values["seed"],
    }
    recipe = parse_recipe(raw, base=Path("/home/ada"), name="mine")
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert digest(load_recipe(path).model_dump()) == digest(recipe.model_dump())


def test_a_dump_writes_every_default_out() -> None:
    written = yaml.safe_load(dump_recipe(parse_recipe(LEAST, base=Path("/home/ada"))))
    assert list(written) == list(Recipe.model_fields)
    for section in ("data", "adapter", "train", "split", "gates"):
        assert list(written[section]) == list(Recipe.model_fields[section].annotation.model_fields)
    assert (written["train"]["learning_rate"], written["gates"]["min_gain"]) == ("auto", 0.02)


def test_the_schema_accepts_what_the_recipe_accepts() -> None:
    schema = recipe_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    demo = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    for raw in (demo, yaml.safe_load(EVERY_KEY), LEAST, LEAST | {"data": {"train": "a", "test": "b"}}):
        assert not list(validator.iter_errors(raw))
    parse_recipe(demo, base=RECIPE.parent)


def test_the_schema_refuses_what_the_recipe_refuses() -> None:
    validator = jsonschema.Draft202012Validator(recipe_schema())
    wrong = [changes for changes, *_ in MISSPELT] + [
        {"train": {"epochs": 0}},
        {"candidates": ["tunde"]},
        {"method": "ddpo"},
        {"method": {"kind": "dpo", "beta": 0}},
        {"data": 5},
        {"grader": {"kind": "numeric", "tolerance": -1}},
        {"grader": {"kind": "rubric"}},
    ]
    for changes in wrong:
        assert list(validator.iter_errors(LEAST | changes)), changes
    assert list(validator.iter_errors({"model": "m"}))


def test_every_key_is_described_for_editors() -> None:
    schema = recipe_schema()
    sections = [schema, *schema["$defs"].values()]
    keys = itertools.chain.from_iterable(section["properties"].items() for section in sections)
    plain = {key for key, value in keys if "description" not in value and "$ref" not in value}
    assert not plain


def test_digest_knows_order_from_content() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest([1, 2]) != digest([2, 1])
