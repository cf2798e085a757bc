"""Remedies repair what is certain and nothing else, in rows of any form, and once is as good as twice."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.audit.cleaning import Workpiece, clean, log_rows, mask_draft, open_workpiece, tally
from luthier.audit.draft import Draft
from luthier.audit.masking import Placeholders, find_private, veil
from luthier.audit.remedies import (
    copies,
    is_code,
    repair_characters,
    strip_markup,
    tidy_answer,
    usual_spellings,
)
from luthier.errors import DataError
from luthier.examples import Example, Message, read_examples
from luthier.examples.files import DataFile

KEY = "sk-" + "abcdEFGH1234567890zyxwvut"
PRIVATE = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEpAIBAAKCAQEA7' * 3}\n-----END RSA PRIVATE KEY-----"


def example(asked: str, answer: str, **more: Any) -> Example:
    said = (Message("user", asked), Message("assistant", answer))
    return Example("id", said, "d.jsonl", 1, **more)


def workpiece(folder: Path, name: str, content: str | bytes, **options: Any) -> Workpiece:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_workpiece(DataFile(path, name), **options)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def only(folder: Path, row: dict[str, Any], **options: Any) -> Draft:
    draft = workpiece(folder, "one.jsonl", lines(row), **options).drafts[0]
    assert draft is not None
    return draft


# --- characters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("cafÃ© open", "café open"),
        ("itâ€™s", "it’s"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("\ufeffhello", "hello"),
        ("a\u200bb\u2060c\u00add", "abcd"),
        ("nul\0 bell\x07 \x1b[31mred\x1b[0m", "nul bell red"),
        ("page\x0cpage", "page\npage"),
        ("it\x92s", "it’s"),
        ("pass\u200cword", "password"),
        ("left\u202eto right", "leftto right"),
        ("two\u00a0words", "two words"),
        ("hidden\U000e0068\U000e0069", "hidden"),
    ],
)
def test_characters_are_repaired(broken: str, whole: str) -> None:
    assert repair_characters(broken) == whole
    assert repair_characters(whole) == whole


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # a joiner that Persian needs
        "👩\u200d💻 and 👨\u200d👩\u200d👧",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "שלום\u200f (שלום)",
        "ภาษา\u200bไทย",  # where a line may break
        "vraiment\u00a0? 10\u00a0000",
        "AT&amp;T",
        "Ångström, São, naïve, Ã, â, £5, 20°",
        "lost \ufffd stays",
        "tab\tand\nline",
    ],
)
def test_what_a_script_needs_stays(text: str) -> None:
    assert repair_characters(text) == text


# --- markers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answer", "bare"),
    [
        ("Hi", "Hello.<|im_end|>", ("Hi", "Hello.")),
        ("Hi", "Hello. </s>\n", ("Hi", "Hello.")),
        ("<s><s>Hi", "<|begin_of_text|><|begin_of_text|>Hello", ("Hi", "Hello")),
        (
            "<|im_start|>user\nHi<|im_end|>",
            "<|im_start|>assistant\nHello<|im_end|><|endoftext|>",
            ("Hi", "Hello"),
        ),
        ("<start_of_turn>user\nHi<end_of_turn>", "<start_of_turn>model\nHello<end_of_turn>", ("Hi", "Hello")),
        ("[INST] Hi [/INST]", "Hello", ("Hi", "Hello")),
    ],
)
def test_markers_around_a_text_are_taken_off(asked: str, answer: str, bare: tuple[str, str]) -> None:
    assert tuple(strip_markup(example(asked, answer))) == bare
    assert tuple(strip_markup(example(*bare))) == bare


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("What does <|im_end|> mean?", "It ends a turn: <|im_end|>"),
        ("What ends with <|im_end|>", "A turn."),
        ("Repeat <|im_start|>user\nHi", "No.<|im_end|>"),
        ("<s>10</s> now 5 euros", "Cheap."),
        ("Strike it", "<s>10</s> now 5, once <s>7</s>"),
        ("[INST] one [/INST] two [INST] three [/INST]", "x"),
        (" a space before ", " and after "),
    ],
)
def test_markers_that_a_text_speaks_of_stay(asked: str, answer: str) -> None:
    assert tuple(strip_markup(example(asked, answer))) == (asked, answer)


# --- answers ----------------------------------------------------------------------------------------


def test_ends_of_answers_are_tidied_but_for_the_indentation_of_code() -> None:
    assert tidy_answer("  yes \r\n", code=False) == "yes"
    assert tidy_answer("one\r\ntwo\rthree", code=False) == "one\ntwo\nthree"
    body = "\n    total = 0\n    return total\n"
    assert is_code(["yes", body])
    assert tidy_answer(body, code=True) == "    total = 0\n    return total"
    assert not is_code(["  yes", " no\nbut", "- a\n  b\n  c"])


def test_labels_take_the_spelling_of_the_majority() -> None:
    answers = ["Billing"] * 3 + ["billing"] * 5 + ["billing."] + ["Refund", "refund"] + ["."] * 2 + ["?"] * 3
    labels = [example(f"q{i}", answer) for i, answer in enumerate(answers)]
    assert usual_spellings(labels) == {"billing": "billing", "refund": "Refund"}  # the first, where they tie
    unwanted = [example(f"u{i}", "BILLING", wanted=False) for i in range(9)]
    assert usual_spellings([*labels, *unwanted]) == {"billing": "billing", "refund": "Refund"}
    texts = [example(f"q{i}", f"A sentence that is number {i}, and it has words.") for i in range(10)]
    assert not usual_spellings([*texts, example("q", "Yes"), example("r", "yes")])


def test_copies_are_what_says_the_same() -> None:
    first = example("Where is it?", "On the way.")
    same = [first, example("where is it", "on the way"), example("Where is it?", "Lost.")]
    assert copies(same) == {1: 0}
    assert copies([first, example("Where is it?", "On the way.", fields={"id": "7"})]) == {1: 0}
    contracts = [example("Is it signed?", "yes", fields={"paper": f"A contract {i}"}) for i in range(2)]
    assert not copies(contracts)  # a column of words that was not read tells them apart
    assert not copies([example("Mark:", "."), example("Mark:", "?")])
    assert not copies([example("?", "what is it"), example("!", "what is it")])
    assert not copies([first, example("Where is it?", "On the way.", wanted=False)])
    assert not copies([first, example("Where is it?", "On the way.", tools=({"name": "f"},))])
    assert not copies([first, example("Where is it?", "On the way.", rejected=("No.",))])


# --- masking ----------------------------------------------------------------------------------------


def masked(*texts: str) -> list[str]:
    placeholders = Placeholders(texts)
    return [placeholders.put(text) for text in texts]


def test_the_same_data_has_one_number_and_other_data_another() -> None:
    asked = "From anna@example.org to bob@example.org, or Anna@Example.org, call +49 171 1234567"
    answered = "bob@example.org: call +49-171-1234567 or +44 20 7946 0958"
    assert masked(asked, answered) == [
        "From [MAIL_1] to [MAIL_2], or [MAIL_1], call [PHONE_1]",
        "[MAIL_2]: call [PHONE_1] or [PHONE_2]",
    ]


def test_placeholders_that_are_there_keep_their_numbers() -> None:
    assert masked("[MAIL_1] and [MAIL_4] wrote to eve@example.org") == [
        "[MAIL_1] and [MAIL_4] wrote to [MAIL_5]"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"use {KEY} now", "use [API_KEY_1] now"),
        (f"here:\n{PRIVATE}\nthanks", "here:\n[PRIVATE_KEY_1]\nthanks"),
        (PRIVATE.partition("\n-----END")[0] + "\n", "[PRIVATE_KEY_1]\n"),
        ("postgres://ada:s3cr3tpw@db.example.org/x", "[ADDRESS_WITH_PASSWORD_1]/x"),
        ("pay DE89 3704 0044 0532 0130 00 today", "pay [IBAN_1] today"),
        ("card 4111 1111 1111 1111.", "card [CARD_1]."),
        ("order 4111111 of 2024-01-31", "order 4111111 of 2024-01-31"),
    ],
)
def test_what_is_private_becomes_a_typed_placeholder(text: str, expected: str) -> None:
    assert masked(text) == [expected]
    assert masked(expected) == [expected]
    assert not list(find_private(expected))


def test_json_answers_stay_json(tmp_path: Path) -> None:
    answer = json.dumps({"mail": "anna@example.org", "key": KEY})
    draft = only(
        tmp_path, {"prompt": "Who? anna@example.org", "completion": answer, "note": "eve@example.org"}
    )
    mask_draft(draft)
    assert json.loads(draft.example.answer) == {"mail": "[MAIL_1]", "key": "[API_KEY_1]"}
    assert draft.example.input == "Who? [MAIL_1]"
    assert draft.values["note"] == "eve@example.org"  # no part of what is said
    assert {change.check for change in draft.changes} == {"secret"}


def test_a_veil_leaves_two_characters_at_each_end() -> None:
    assert veil(f"a {KEY} b anna@example.org", secrets_alone=True) == "a sk…ut b anna@example.org"
    assert veil("anna@example.org, password: hunter2a") == "an…rg, password: …"
    assert "MIIE" not in veil(f"x\n{PRIVATE}")


# --- rows of every form -----------------------------------------------------------------------------

ASK, OLD, NEW = "Where is it?", "On the way", "Lost"
FORMS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": OLD}]},
    "parts": {
        "messages": [
            {"role": "user", "content": ASK},
            {"role": "assistant", "content": [{"type": "text", "text": OLD}]},
        ]
    },
    "cell": {
        "messages": json.dumps([{"role": "user", "content": OLD}, {"role": "assistant", "content": OLD}])
    },
    "sharegpt": {"conversations": [{"from": "human", "value": OLD}, {"from": "gpt", "value": OLD}]},
    "alpaca": {"output": OLD, "instruction": ASK, "input": OLD},
    "completion": {"prompt": OLD, "completion": OLD, "extra": OLD},
    "chat": {
        "prompt": [{"role": "user", "content": OLD}],
        "completion": {"role": "assistant", "content": OLD},
    },
    "question": {"context": OLD, "question": ASK, "answer": OLD, "choices": [OLD, NEW]},
    "label": {"label": OLD, "text": OLD},
    "chosen": {"prompt": ASK, "chosen": OLD, "rejected": "No idea"},
    "transcript": {
        "chosen": f"\n\nHuman: {ASK}\n\nAssistant: {OLD}",
        "rejected": f"\n\nHuman: {ASK}\n\nAssistant: No idea",
    },
}


@pytest.mark.parametrize("name", FORMS)
def test_the_answer_is_changed_in_its_own_place(name: str, tmp_path: Path) -> None:
    row = FORMS[name]
    draft = only(tmp_path, row)
    before = draft.example
    assert draft.answer(NEW, "check", "why")
    assert draft.example.answer == NEW
    assert (draft.example.request, draft.example.rejected) == (before.request, before.rejected)
    assert [(c.before, c.after) for c in draft.changes] == [
        (c.before, c.before.removesuffix(OLD) + NEW) for c in draft.changes
    ]
    assert len(draft.changes) == 1
    again = only(tmp_path, dict(draft.values))
    assert again.example.messages == draft.example.messages
    assert row == FORMS[name]  # what was read is not changed in place
    changed = {column for column in row if draft.values[column] != row[column]}
    assert len(changed) == 1


def test_answers_that_are_no_text_keep_their_type(tmp_path: Path) -> None:
    draft = only(tmp_path, {"text": "spam?", "label": 1})
    assert draft.answer("0", "c", "r")
    assert draft.values["label"] == 0
    structured = only(tmp_path, {"prompt": "p", "completion": {"queue": "a", "type": "b"}})
    assert structured.answer('{"queue": "c"}', "c", "r")
    assert structured.values["completion"] == {"queue": "c"}


def test_a_row_that_cannot_say_it_is_left_alone(tmp_path: Path) -> None:
    row = {"question": "Which?", "choices": ["red", "blue"], "answer": 1}
    draft = only(tmp_path, row)
    assert draft.example.answer == "B"
    assert not draft.answer("C", "c", "r")
    assert (draft.values, draft.changes) == (row, [])


def test_columns_of_the_users_own_names(tmp_path: Path) -> None:
    columns = {"frage": "prompt", "antwort": "completion"}
    piece = workpiece(tmp_path, "d.jsonl", lines({"frage": "cafÃ©?", "antwort": "ja "}), columns=columns)
    clean([piece])
    assert piece.text() == lines({"frage": "café?", "antwort": "ja"})


# --- files ------------------------------------------------------------------------------------------

ROW = {"text": "Where is it, please tell me", "label": "late"}
SOURCES = {
    "d.jsonl": b'{"text":"a b",  "label":"x\\u00e9"}\n\n {"label": "y", "text": "c d", "n": 1.50}',
    "crlf.jsonl": b'{"text": "a b", "label": "x"}\r\n{"text": "c d", "label": "y"}\r\n',
    "spread.json": b'{\n  "text": "a b",\n  "label": "x"\n}\n{\n  "text": "c d",\n  "label": "y"\n}\n',
    "d.csv": b'text;label;n\r\n"a ""b""";x;"1"\r\n"c\r\nd";y;\r\n',
    "sep.csv": b"sep=|\ntext|label\na b|x\nc d|y\n",
    "d.tsv": b"text\tlabel\na b\tx\nc d\ty\n",
    "d.txt": b"# Title\n\n\nA paragraph\nof two lines.\n\nAnother one.",
}


@pytest.mark.parametrize("name", SOURCES)
def test_rows_that_are_not_changed_keep_their_bytes(name: str, tmp_path: Path) -> None:
    piece = workpiece(tmp_path, name, SOURCES[name])
    clean([piece])
    assert piece.text().encode() == SOURCES[name]
    assert not piece.changes
    last = next(draft for draft in reversed(piece.drafts) if draft is not None)
    others = [draft.example for draft in piece.kept[:-1]]
    assert last.answer("something else", "c", "r")
    (tmp_path / f"again-{name}").write_text(piece.text(), newline="")
    again = read_examples(tmp_path / f"again-{name}").examples
    assert [e.messages for e in again] == [*(e.messages for e in others), last.example.messages]
    assert piece.text().encode()[: len(SOURCES[name]) // 3] == SOURCES[name][: len(SOURCES[name]) // 3]


def test_a_list_keeps_its_rows(tmp_path: Path) -> None:
    rows = [{"text": "a b", "label": "x", "n": 1e-3, "m": None}, {"text": "c d", "label": "é"}]
    piece = workpiece(tmp_path, "d.json", json.dumps(rows))
    assert json.loads(piece.text()) == rows
    piece.kept[0].drop("c", "r")
    assert json.loads(piece.text()) == rows[1:]
    piece.kept[0].drop("c", "r")
    assert json.loads(piece.text()) == []


def test_what_cannot_be_read_is_left_out_and_logged(tmp_path: Path) -> None:
    good = lines(ROW).encode()
    content = (
        b"\xef\xbb\xbf"
        + good
        + b'{"text": "half\n'
        + b'{"text": "no label"}\n'
        + b'{"text": "\xff", "label": "x"}\n'
    )
    content += b'{"text": "n\0ul is taken out", "label": "x"}\n\xef\xbb\xbf{"text": "joined", "label": "x"}'
    piece = workpiece(tmp_path, "d.jsonl", content)
    clean([piece])
    assert piece.text() == (
        lines(ROW) + lines({"text": "nul is taken out", "label": "x"}) + '{"text": "joined", "label": "x"}'
    )
    log = [(row["line"], row["check"], row["action"]) for row in log_rows(piece, masked=False)]
    assert log == [
        (1, "encoding", "changed"),
        (2, "unreadable", "dropped"),
        (3, "unreadable", "dropped"),
        (4, "unreadable", "dropped"),
        (5, "encoding", "changed"),
        (6, "encoding", "changed"),
    ]
    assert log_rows(piece, masked=False)[1]["before"] == '{"text": "half'
    assert tally([piece]) == {("encoding", "changed"): 3, ("unreadable", "dropped"): 3}


def test_a_file_without_a_readable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d\.jsonl:1: not valid JSON"):
        workpiece(tmp_path, "d.jsonl", b"{\n")
    with pytest.raises(DataError, match="no such file"):
        open_workpiece(DataFile(tmp_path / "gone.jsonl", "gone.jsonl"))


def test_rows_that_would_say_nothing_are_dropped(tmp_path: Path) -> None:
    piece = workpiece(tmp_path, "d.jsonl", lines(ROW, {"text": "\u200b\u200b", "label": "late"}))
    clean([piece])
    (change,) = piece.changes
    assert (change.action, change.check) == ("dropped", "encoding")
    assert "nothing from the user" in change.reason


def test_secrets_are_veiled_in_the_log(tmp_path: Path) -> None:
    content = (
        lines(
            {"text": f"my key is {KEY} and cafÃ©", "label": "a"},
            {"text": "ask anna@example.org cafÃ©", "label": "b"},
            {"text": f"dropped {KEY}", "label": "a"},
            {"text": f"dropped {KEY}", "label": "a"},
        )
        + f'{{"text": "{KEY}\n'
    )
    for mask in (False, True):
        piece = workpiece(tmp_path, "d.jsonl", content)
        clean([piece], mask=mask)
        log = json.dumps(log_rows(piece, masked=mask))
        assert KEY not in log
        assert ("anna@" in log) is not mask
        assert (KEY in piece.text()) is not mask


def test_worse_answers_are_tidied_too(tmp_path: Path) -> None:
    piece = workpiece(tmp_path, "d.jsonl", lines({"prompt": "p", "chosen": "good ", "rejected": "bad\n"}))
    clean([piece])
    assert piece.text() == lines({"prompt": "p", "chosen": "good", "rejected": "bad"})


# --- properties -------------------------------------------------------------------------------------

PARTS = (
    *("where is it", "cafÃ©", "Ã", "\u200b", "\0", "<|im_end|>", "<s>", "</s>", "[INST]", KEY, "[MAIL_1]"),
    *(
        "anna@example.org",
        "+49 171 1234567",
        " ",
        "\n",
        "\r\n",
        "    x",
        "\ufeff",
        "\x1b[0m",
        "é",
        "?",
        "\x0c",
    ),
    "Ã\u0083Â©",
)
texts = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join)
answers = st.sampled_from(["Late", "late", "late ", "LATE.", "lost", "<|im_end|>", " lost\r\n", "?"]) | texts
some_rows = st.lists(
    st.fixed_dictionaries({"text": texts, "label": answers}, optional={"group": texts, "note": texts}),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=some_rows, mask=st.booleans())
def test_cleaning_twice_is_cleaning_once(
    name: str, tmp_path: Path, found: list[dict[str, str]], mask: bool
) -> None:
    found = [{"text": "where is it", "label": "late"}, *found]
    path = tmp_path / name
    if name == "d.csv":
        names = ("text", "label", "group", "note")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(found)
        content = path.read_bytes()
    else:
        content = (lines(*found) if name == "d.jsonl" else json.dumps(found)).encode()
    piece = workpiece(tmp_path, name, content)
    clean([piece], mask=mask)
    once = piece.text()
    again = workpiece(tmp_path, name, once)
    clean([again], mask=mask)
    assert not again.changes
    assert again.text() == once
    for draft in piece.kept:
        assert draft.example.answer == draft.example.answer.strip()
        if mask:
            assert not any(any(find_private(text)) for text in draft.example.texts)
    untouched = [d.values for d in piece.kept if not d.changes]
    assert all(dict(values) in [dict(d.values) for d in again.kept] for values in untouched)


def test_a_thousand_rows_in_any_order_give_the_same_spellings(tmp_path: Path) -> None:
    chance = random.Random(0)
    found = [
        {"text": f"case {i}", "label": chance.choice(["Late", "late", "Lost", "lost"])} for i in range(999)
    ]
    found += [{"text": f"case {i}", "label": "late"} for i in range(1000, 1200)]
    piece = workpiece(tmp_path, "d.jsonl", lines(*found))
    clean([piece])
    assert {draft.example.answer.lower() for draft in piece.kept} == {"late", "lost"}
    assert len({draft.example.answer for draft in piece.kept}) == 2
    assert "late" in {draft.example.answer for draft in piece.kept}
