"""Preferences as people store them: chosen and rejected answers, implicit prompts, judged answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier.audit import Finding, audit_examples
from luthier.cli.starter import write_starter
from luthier.errors import DataError
from luthier.examples import Example, Message, read_examples, split_examples
from luthier.recipe import load_recipe
from luthier.recipe.method_options import method_name

ASKED = {"role": "user", "content": "Where?"}
GOOD = {"role": "assistant", "content": "Here."}
BAD = {"role": "assistant", "content": "No idea."}
SYSTEM = {"role": "system", "content": "Be kind."}


def read(folder: Path, *rows: dict[str, Any], name: str = "pairs.jsonl") -> tuple[Example, ...]:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_examples(path).examples


FORMS: list[dict[str, Any]] = [
    {"prompt": "Where?", "chosen": "Here.", "rejected": "No idea."},
    {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
    {"prompt": [ASKED], "chosen": GOOD, "rejected": BAD},
    {"prompt": [ASKED], "chosen": "Here.", "rejected": [BAD]},
    {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    {"prompt": "Where?", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    {"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    {"prompt": "Where?", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "messages": [ASKED, GOOD]},
    {
        "chosen": "\n\nHuman: Where?\n\nAssistant: Here.",
        "rejected": "\n\nHuman: Where?\n\nAssistant: No idea.",
    },
    {"prompt": "\n\nHuman: Where?\n\nAssistant:", "chosen": "Here.", "rejected": "No idea."},
    {"chosen": "Where? Here.", "rejected": "Where? No idea."},
    {"Prompt": "Where?", "Chosen": "Here.", "REJECTED": "No idea."},
    {"messages": [ASKED, GOOD], "rejected": ["No idea."]},
    {"messages": [ASKED, GOOD], "rejected": "No idea."},
]


@pytest.mark.parametrize("row", FORMS)
def test_every_form_says_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    (example,) = read(tmp_path, row)
    assert [m.as_dict() for m in example.messages] == [ASKED, GOOD]
    assert (example.answer, example.rejected, example.wanted) == ("Here.", ("No idea.",), True)
    assert example.where.endswith("pairs.jsonl:1")
    assert not example.fields or set(example.fields) == {"messages"}


def test_whole_conversations_share_their_turns(tmp_path: Path) -> None:
    turns = [SYSTEM, ASKED, GOOD, {"role": "user", "content": "And then?"}]
    (example,) = read(tmp_path, {"chosen": [*turns, GOOD], "rejected": [*turns, BAD], "score_chosen": 9})
    assert [m.as_dict() for m in example.request] == turns
    assert (example.answer, example.rejected) == ("Here.", ("No idea.",))
    assert example.fields == {"score_chosen": 9}


def test_a_system_column_goes_before_both_answers(tmp_path: Path) -> None:
    row = {"system": "Be kind.", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "group": "g"}
    (example,) = read(tmp_path, row)
    assert [m.as_dict() for m in example.messages] == [SYSTEM, ASKED, GOOD]
    assert (example.rejected, example.group) == (("No idea.",), "g")


def test_a_prompt_that_two_texts_begin_with_ends_at_a_word(tmp_path: Path) -> None:
    (example,) = read(tmp_path, {"chosen": "The sky is green", "rejected": "The sky is grey"})
    assert (example.input, example.answer, example.rejected) == ("The sky is", "green", ("grey",))


def test_several_worse_answers_keep_their_order(tmp_path: Path) -> None:
    (example,) = read(tmp_path, {"prompt": "Where?", "chosen": "Here.", "rejected": ["There.", "No idea."]})
    assert example.rejected == ("There.", "No idea.")


def test_csv_holds_pairs_and_judgements(tmp_path: Path) -> None:
    pairs, judged = tmp_path / "pairs.csv", tmp_path / "judged.csv"
    pairs.write_text("prompt,chosen,rejected\nWhere?,Here.,No idea.\n", encoding="utf-8")
    judged.write_text("prompt,completion,label\nWhere?,Here.,True\nWhere?,No idea.,false\n", encoding="utf-8")
    assert read_examples(pairs).examples[0].rejected == ("No idea.",)
    assert [example.wanted for example in read_examples(judged).examples] == [True, False]


def test_a_label_that_is_a_class_stays_a_column(tmp_path: Path) -> None:
    (example,) = read(tmp_path, {"prompt": "Where?", "completion": "Here.", "label": "spam"})
    assert (example.wanted, example.fields) == (True, {"label": "spam"})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "the same answer"),
        ({"prompt": "q", "chosen": "a", "rejected": "  "}, "rejected answer is empty"),
        ({"prompt": "q", "chosen": " ", "rejected": "b"}, "the answer is empty"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected is null"),
        ({"prompt": "q", "chosen": "a", "rejected": []}, "rejected has no messages"),
        ({"prompt": "q", "chosen": "a", "rejected": ["b", "b"]}, "rejected twice"),
        ({"prompt": "q", "chosen": "a"}, "no column rejected"),
        ({"chosen": "yes", "rejected": "no"}, "there is no prompt"),
        ({"chosen": [ASKED, GOOD], "rejected": [{"role": "user", "content": "Who?"}, BAD]}, "differ before"),
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD, ASKED, BAD]}, "differ before"),
        ({"prompt": [SYSTEM], "chosen": [ASKED, GOOD], "rejected": [BAD]}, "does not begin with the prompt"),
        ({"prompt": "q", "chosen": "a", "rejected": ASKED}, "differ before"),
    ],
)
def test_what_is_not_a_preference_is_named_with_line_and_fix(
    tmp_path: Path, row: dict[str, Any], says: str
) -> None:
    good = {"prompt": "Where?", "chosen": "Here.", "rejected": "No idea."}
    with pytest.raises(DataError, match=says) as caught:
        read(tmp_path, good, good | {"prompt": "Who?"}, row)
    assert caught.value.where is not None and caught.value.where.endswith("pairs.jsonl:3")
    assert caught.value.fix


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [ASKED, GOOD], "rejected": True}, "rejected is a bool"),
        ({"messages": [ASKED, GOOD], "wanted": "yes"}, "wanted is a str"),
        ({"messages": [ASKED, GOOD], "rejected": "Here."}, "the same answer"),
    ],
)
def test_judgements_beside_messages_are_checked(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, row)


def test_a_label_that_is_neither_good_nor_bad_is_named(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a", "label": True}
    with pytest.raises(DataError, match=r"pairs.jsonl:2: label is 0.7, expected true"):
        read(tmp_path, row, row | {"label": 0.7}, row, row)


def test_the_run_folder_keeps_preferences_and_reads_them_again(tmp_path: Path) -> None:
    pair, bare = read(tmp_path, *FORMS[:1], {"prompt": "q", "chosen": "a", "rejected": ["b", "c"]})
    (judged,) = read(tmp_path, {"prompt": "Where?", "completion": "No idea.", "label": False})
    for example in (pair, bare, judged):
        assert Example.from_row(json.loads(json.dumps(example.as_row()))) == example
    again = read(tmp_path, *(example.as_row() for example in (pair, bare, judged)), name="side.jsonl")
    assert [(e.messages, e.rejected, e.wanted) for e in again] == [
        (e.messages, e.rejected, e.wanted) for e in (pair, bare, judged)
    ]
    plain = Example("i", (Message("user", "q"), Message("assistant", "a")), "f", 1)
    assert not {"rejected", "wanted"} & plain.as_row().keys()


def test_ids_tell_judgements_apart_and_leave_others_as_they_were(tmp_path: Path) -> None:
    one = read(tmp_path, FORMS[0])[0]
    other = read(tmp_path, FORMS[0] | {"rejected": "Ask him."})[0]
    plain = read(tmp_path, {"prompt": "Where?", "completion": "Here."})[0]
    bad = read(tmp_path, {"prompt": "Where?", "completion": "Here.", "label": False})[0]
    good = read(tmp_path, {"prompt": "Where?", "completion": "Here.", "label": True})[0]
    assert len({one.id, other.id, plain.id, bad.id}) == 4
    assert good.id == plain.id == "3de14d444f65311d"


def test_the_audit_reads_worse_answers_and_takes_none_for_the_right_one(tmp_path: Path) -> None:
    key = "the key is sk-proj-" + hashlib.sha256(b"made up").hexdigest()[:40]
    pairs = read(tmp_path, FORMS[0] | {"rejected": f"Write to ann.lee@example.org, {key}"})
    found = {finding.check for finding in audit_examples({"all": pairs}, special_tokens=()).findings}
    assert {"personal_data", "secret"} <= found
    judged = [{"prompt": "Where?", "completion": a, "label": a == "Here."} for a in ("Here.", "No.", "Nope.")]
    audit = audit_examples({"all": read(tmp_path, *judged)})
    assert not {"label_conflict", "exact_duplicate"} & {finding.check for finding in audit.findings}
    assert audit.examples == 3
    spam = [{"prompt": "Where?", "chosen": "Here.", "rejected": worse} for worse in ("No.", "Nope.", "No.")]
    copies = [
        f for f in audit_examples({"all": read(tmp_path, *spam)}).findings if f.check == "exact_duplicate"
    ]
    assert [len(finding.examples) for finding in copies] == [2]


def judged(folder: Path, *rows: tuple[str, str, bool], name: str = "judged.jsonl") -> tuple[Example, ...]:
    """Requests, answers, and whether they are good."""
    columns = ("prompt", "completion", "label")
    return read(folder, *(dict(zip(columns, row, strict=True)) for row in rows), name=name)


def found(sides: dict[str, tuple[Example, ...]], check: str) -> list[Finding]:
    audit = audit_examples(sides)
    assert not audit.failed
    return [finding for finding in audit.findings if finding.check == check]


def test_an_answer_that_is_good_and_bad_is_named(tmp_path: Path) -> None:
    rows = judged(
        tmp_path,
        ("Where?", "Here.", True),
        ("Where?", "No.", False),
        ("where", "Here.", False),  # the same request
        ("Where?", "Here", False),  # another answer: without the full stop
        ("Who?", "Here.", False),
        ("Who?", "Here.", False),
    )
    (finding,) = found({"all": rows}, "judgement_conflict")
    assert [example.line for example in finding.examples] == [1, 3]
    assert (finding.severity, finding.score) == ("warning", 0.5)
    assert "'Here.' is 1 time a good and 1 time a bad answer" in finding.message
    pairs = read(
        tmp_path,
        {"prompt": "Where?", "chosen": "Here.", "rejected": "No."},
        {"prompt": "Where?", "chosen": "No.", "rejected": "Here."},
        {"prompt": "Where?", "chosen": "There.", "rejected": "Here."},
    )
    first, second = found({"all": pairs}, "judgement_conflict")
    assert [e.line for e in first.examples] == [1, 2, 3] and first.score == pytest.approx(1 / 3)
    assert [e.line for e in second.examples] == [1, 2] and second.score == 0.5


def test_copies_of_bad_answers_are_copies_and_a_bad_one_is_none_of_a_good_one(tmp_path: Path) -> None:
    rows = judged(
        tmp_path,
        ("Where?", "Here.", True),
        ("Where?", "No.", False),
        ("Where?", "No.", False),
        ("Who?", "Me.", True),
        ("Who?", "Me.", False),
    )
    (copies,) = found({"all": rows}, "exact_duplicate")
    assert [example.line for example in copies.examples] == [2, 3]
    assert not found({"all": rows}, "label_conflict")


def test_a_bad_answer_to_a_held_out_request_leaks_and_one_that_is_held_out_does_not(tmp_path: Path) -> None:
    train = judged(tmp_path, ("Where is it?", "No.", False), ("Who is it?", "Me.", True))
    test = judged(tmp_path, ("Where is it?", "Here.", True), ("Who is it?", "Not me.", False), name="t.jsonl")
    (leak,) = found({"train": train, "test": test}, "leakage")
    assert {Path(e.file).name: e.line for e in leak.examples} == {"judged.jsonl": 1, "t.jsonl": 1}
    assert leak.severity == "error"
    (leak,) = found({"train": train[1:], "validation": test[1:], "test": test[:1]}, "leakage")
    assert {Path(e.file).name: e.line for e in leak.examples} == {"judged.jsonl": 2, "t.jsonl": 2}


def test_bad_answers_alone_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every answer is marked as one not to give"):
        audit_examples({"all": judged(tmp_path, ("Where?", "No.", False))})


def test_a_side_needs_answers_that_should_be_given(tmp_path: Path) -> None:
    rows = [(f"request {n} of {n * n}", f"answer {n}", n % 10 < 2) for n in range(200)]
    examples = judged(tmp_path, *rows)
    split = split_examples(examples, validation=0.2, test=0.3, seed=0)
    assert sum(e.wanted for e in split.test) >= 8 and len(split.test) > 40
    with pytest.raises(DataError, match="not counting answers that should not be given") as caught:
        split_examples(examples[:100], validation=0.1, test=0.3, seed=0)
    good = sum(
        e.wanted
        for e in split_examples(
            [replace(e, wanted=True) for e in examples[:100]], validation=0.1, test=0.3, seed=0
        ).test
    )
    assert f"test {good}" not in caught.value.message and "(at least 8)" in caught.value.message
    given = {"test": examples[2:10]}  # eight of them, all bad
    with pytest.raises(DataError, match=r"test 0 \(at least 8\)"):
        split_examples(examples[10:], validation=0.2, test=0.3, seed=0, given=given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "method"),
    [
        ([{"prompt": "q", "completion": "a", "label": n > 0} for n in range(3)], "kto"),
        ([{"prompt": "q", "chosen": "a", "rejected": "b"}] * 3, "dpo"),
        ([{"prompt": "q", "completion": "a", "label": True}] * 3, "sft"),
        ([{"prompt": "q", "completion": "a"}] * 3, "sft"),
    ],
)
def test_a_starter_recipe_names_the_method_of_its_data(
    tmp_path: Path, rows: list[dict[str, Any]], method: str
) -> None:
    read(tmp_path, *rows, name="data.jsonl")
    out = write_starter(tmp_path / "data.jsonl", tmp_path / "recipe.yaml", force=False)
    assert method_name(load_recipe(out).method) == method


def test_a_starter_recipe_chooses_its_grader_by_good_answers(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "completion": f"label {n % 2}", "label": True} for n in range(8)]
    rows += [{"prompt": f"q{n}", "completion": f"{n} " * 60, "label": False} for n in range(8)]
    read(tmp_path, *rows, name="data.jsonl")
    assert (
        load_recipe(write_starter(tmp_path / "data.jsonl", tmp_path / "r.yaml", force=False)).grader
        == "label"
    )
