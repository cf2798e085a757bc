"""JSON graders: what parses, what is valid, which fields are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import DataError, LuthierError, RecipeError
from luthier.examples.example import Example, Message
from luthier.grade import build_grader
from luthier.grade.answer_json import NotJson, parse_answer, parse_object
from luthier.grade.infer_schema import infer_schema
from luthier.grade.json_fields import JsonFields
from luthier.grade.json_schema import JsonSchema
from luthier.stats import wilson

EXAMPLE = Example("id", (Message("user", "q"), Message("assistant", "a")), "tickets.jsonl", 17)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=5)


@pytest.mark.parametrize(
    "text", ['{"a": 1}', ' \n{"a":1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}```', '```JSON {"a": 1} ```']
)
def test_readable(text: str) -> None:
    assert parse_answer(text) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("```json\n```", "empty"),
        ('Here it is: {"a": 1}', "character 0"),
        ('{"a": 1} I hope this helps', "character 9"),
        ('```json\n{"a": 1}\n```\nDone.', "not JSON"),
        ("{'a': 1}", "not JSON"),
        ('{"a": 1,}', "not JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "1e999"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "nested"),
        ("[" * 33 + "]" * 33, "nested"),
    ],
)
def test_unreadable(text: str, message: str) -> None:
    with pytest.raises(NotJson, match=message):
        parse_answer(text)


def test_depth_limit_itself_is_readable() -> None:
    assert parse_answer("[" * 32 + "]" * 32)
    with pytest.raises(NotJson, match="array, not an object"):
        parse_object("[1]")


@pytest.mark.parametrize(
    ("answer", "value", "wrong"),
    [
        ('{"name": "Ann", "age": 7, "vip": true}', 1.0, []),
        ('{"age": 7.0, "vip": true, "name": " ANN "}', 1.0, []),
        ('{"name": "Ann", "age": "7", "vip": true}', 2 / 3, ["age"]),
        ('{"name": "Ann", "age": 7, "vip": 1}', 2 / 3, ["vip"]),
        ('{"name": "Ann", "age": 7}', 2 / 3, ["vip"]),
        ('{"name": "Ann", "age": 7, "vip": true, "city": null}', 3 / 4, ["city"]),
        ('{"name": null, "age": true, "vip": "true"}', 0.0, ["name", "age", "vip"]),
        ("{}", 0.0, ["name", "age", "vip"]),
        ("Ann is 7", 0.0, ["name", "age", "vip"]),
        ('[{"name": "Ann"}]', 0.0, ["name", "age", "vip"]),
    ],
)
def test_fields(answer: str, value: float, wrong: list[str]) -> None:
    score = JsonFields().grade(answer, '{"name": "Ann", "age": 7, "vip": true}', EXAMPLE)
    assert score.value == pytest.approx(value)
    assert [name for name, ok in score.detail["fields"].items() if not ok] == wrong
    assert (score.reason is None) == (not wrong)


def test_missing_and_extra_fields_are_named() -> None:
    score = JsonFields().grade('{"a": 1, "c": {"d": 2}}', '{"a": 1, "b": 2, "c": {"e": 3}}', EXAMPLE)
    assert score.detail == {
        "fields": {"a": 1, "b": 0, "c.e": 0, "c.d": 0},
        "missing": ["b", "c.e"],
        "extra": ["c.d"],
        "parsed": True,
    }
    assert JsonFields().grade("no", '{"a": 1}', EXAMPLE).detail == {
        "fields": {"a": 0},
        "missing": ["a"],
        "extra": [],
        "parsed": False,
    }


def test_fields_are_counted_over_the_answers_whose_reference_has_them() -> None:
    cases = [
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        ('{"a": 9, "x": 2}', '{"a": 1, "b": 2}'),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ("nothing", '{"a": 1}'),
        ('{"a": 1}', "not JSON"),  # unscored: counts nowhere
    ]
    rows = []
    for answer, reference in cases:
        score = JsonFields().grade(answer, reference, EXAMPLE)
        rows.append({"score": score.value, "detail": score.detail})
    low, high = wilson(2, 4)
    assert JsonFields().summarise(rows, None) == {
        "fields": {
            "a": {"n": 4, "accuracy": 0.5, "low": low, "high": high, "missing": 1},
            "b": {"n": 2, "accuracy": 0.5, "low": wilson(1, 2)[0], "high": wilson(1, 2)[1], "missing": 1},
        },
        "extra_fields": {"x": 1, "b": 1},
        "unreadable": 1,
    }
    assert JsonFields().summarise([], None) == {"fields": {}, "extra_fields": {}, "unreadable": 0}


def test_one_is_not_true_either_way() -> None:
    assert JsonFields().grade('{"a": true}', '{"a": 1}', EXAMPLE).value == 0
    assert JsonFields().grade('{"a": [1]}', '{"a": [true]}', EXAMPLE).value == 0
    assert JsonFields().grade('{"a": false}', '{"a": 0}', EXAMPLE).value == 0


def test_nested_objects_count_field_by_field_and_lists_as_one() -> None:
    reference = '{"who": {"name": "Ann", "home": {"city": "Ulm", "zip": 1}}, "tags": ["a", "b"], "x": {}}'
    answer = '{"who": {"name": "ann", "home": {"city": "Bonn"}}, "tags": ["b", "a"], "x": {}}'
    score = JsonFields().grade(answer, reference, EXAMPLE)
    assert score.detail["fields"] == {
        "who.name": 1,
        "who.home.city": 0,
        "who.home.zip": 0,
        "tags": 0,
        "x": 1,
    }
    assert score.value == pytest.approx(2 / 5)


def test_an_object_where_a_value_belongs_is_missing_and_extra() -> None:
    score = JsonFields().grade('{"a": {"b": 1}}', '{"a": 1}', EXAMPLE)
    assert score.detail["fields"] == {"a": 0, "a.b": 0}


def test_accents_in_either_unicode_form_are_equal() -> None:
    assert JsonFields().grade('{"a": "e\\u0301"}', '{"a": "\\u00e9"}', EXAMPLE).value == 1


def test_an_unreadable_reference_is_unscored_not_wrong() -> None:
    score = JsonFields().grade('{"a": 1}', "n/a", EXAMPLE)
    assert score.value is None and score.reason is not None and "reference" in score.reason


def test_half_a_surrogate_in_a_key_can_still_be_written_to_a_file() -> None:
    score = JsonFields().grade('{"\\ud800": 1}', '{"a": 1}', EXAMPLE)
    json.dumps([score.reason, score.detail], ensure_ascii=False).encode("utf-8")
    for rest in (False, {"type": "string"}):
        schema = JsonSchema({"type": "object", "additionalProperties": rest})
        reason = schema.grade('{"\\ud800": 1}', "", EXAMPLE).reason
        assert reason is not None and reason.encode("utf-8")


@settings(deadline=None, max_examples=50)
@given(OBJECTS)
def test_an_object_equals_itself_in_any_order(value: dict[str, Any]) -> None:
    shuffled = json.dumps(dict(reversed(value.items())))
    assert JsonFields().grade(shuffled, json.dumps(value), EXAMPLE).value == 1


@settings(deadline=None, max_examples=50)
@given(OBJECTS, OBJECTS)
def test_fields_do_not_mind_who_is_the_reference(a: dict[str, Any], b: dict[str, Any]) -> None:
    one = JsonFields().grade(json.dumps(a), json.dumps(b), EXAMPLE).value
    assert one == JsonFields().grade(json.dumps(b), json.dumps(a), EXAMPLE).value


@settings(deadline=None, max_examples=50)
@given(st.lists(VALUES, max_size=8))
def test_an_inferred_schema_accepts_what_it_was_inferred_from(values: list[Any]) -> None:
    schema = infer_schema(values)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert all(validator.is_valid(value) for value in values)


def test_inferred_schema_by_hand() -> None:
    rows = [
        {"kind": "ab"[i % 2], "note": f"note {i}", "n": i, "x": 0.5 if i else 1, "tags": ["t"], "opt": None}
        for i in range(10)
    ]
    del rows[3]["opt"]
    assert infer_schema(rows) == {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["a", "b"]},
            "n": {"type": "integer"},
            "note": {"type": "string"},
            "opt": {"type": "null"},
            "tags": {"type": "array", "items": {"type": "string", "enum": ["t"]}},
            "x": {"type": "number"},
        },
        "required": ["kind", "n", "note", "tags", "x"],
        "additionalProperties": False,
    }
    assert infer_schema([1, None]) == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert infer_schema([]) == {}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"kind": "refund", "n": 3}', 1),
        ('```json\n{"kind": "bill", "n": 900}\n```', 1),
        ('{"kind": "Refund", "n": 3}', 0),
        ('{"kind": "refund", "n": "3"}', 0),
        ('{"kind": "refund", "n": true}', 0),
        ('{"kind": "refund"}', 0),
        ('{"kind": "refund", "n": 3, "extra": 1}', 0),
        ("refund", 0),
    ],
)
def test_json_schema_inferred_from_references(answer: str, value: float) -> None:
    references = [json.dumps({"kind": ["refund", "bill"][i % 2], "n": i}) for i in range(20)]
    score = build_grader("json_schema", references, answer_schema=None).grade(answer, "", EXAMPLE)
    assert score.value == value
    assert (score.reason is None) == (value == 1)


def test_json_schema_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}')
    grader = build_grader("json_schema", ["not JSON at all"], answer_schema=file)
    assert grader.grade('{"a": 1, "b": 2}', "", EXAMPLE).value == 1
    assert grader.grade('{"a": "1"}', "", EXAMPLE).reason == "$.a: '1' is not of type 'integer'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ('{"type": "objekt"}', "not a JSON Schema, at type"),
        ("[1]", "not a JSON Schema, at the top"),
        ('{"$ref": "http://127.0.0.1:9/other.json"}', "refers to"),
        ('{"$ref": "#/$defs/missing"}', "refers to"),
        ('{"$ref": "#"}', "itself without end"),
    ],
)
def test_a_broken_schema_file_is_named_at_once(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "schema.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        build_grader("json_schema", ['{"a": 1}'], answer_schema=file)
    assert caught.value.where == str(file)


def test_references_to_other_files_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **rest: opened.append(args))
    (tmp_path / "other.json").write_text('{"type": "integer"}')
    for reference in ((tmp_path / "other.json").as_uri(), "http://127.0.0.1:9/other.json"):
        with pytest.raises(RecipeError, match="refers to"):
            JsonSchema({"$ref": reference}).grade("1", "", EXAMPLE)
    assert not opened


@pytest.mark.parametrize("references", [[], ['{"a": 1}', "sorry"]])
def test_no_schema_to_infer(references: list[str]) -> None:
    with pytest.raises(DataError, match="answer_schema") as caught:
        build_grader("json_schema", references, answer_schema=None)
    assert isinstance(caught.value, LuthierError)
