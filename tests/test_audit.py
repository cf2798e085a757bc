"""Each check finds a planted fault and is quiet on a clean file."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from luthier.audit import CHECKS, Audit, Finding, audit_examples
from luthier.audit.label_conflict import words_agree
from luthier.audit.too_few_examples import detectable_difference, examples_needed
from luthier.errors import DataError
from luthier.examples.answers import kind_of_answers
from luthier.examples.example import Example, Message

RNG = random.Random(3)
VOCABULARY = ["".join(RNG.choices("abcdefghijklmnopqrstuvwxyz", k=RNG.randint(3, 9))) for _ in range(800)]
LABELS = ("billing", "delivery", "refund", "account")
# Random words have no language and do not tell their label; the rest is about answers in words, or suites.
NOT_FOR_LABELS = {
    *("language_mix", "label_error", "schema_violation", "suite_leakage"),
    *("refusal", "copied_answer", "unfinished_answer"),
}


@pytest.fixture(autouse=True)
def _no_fast_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """`label_error` has tests of its own; here its model would guess, and take most of the time."""

    def guess(texts: Sequence[str], *ignored: Any, classes: int, **options: Any) -> np.ndarray:
        return np.full((len(texts), classes), 1 / classes)

    monkeypatch.setattr("luthier.audit.label_error.out_of_fold_chances", guess)


def example(
    asked: str, answer: str, line: int = 0, *, system: str | None = None, file: str = "data.jsonl"
) -> Example:
    head = (Message("system", system),) if system is not None else ()
    return Example(
        f"{file}-{line}", (*head, Message("user", asked), Message("assistant", answer)), file, line
    )


def clean(n: int = 1000, *, start: int = 0, file: str = "data.jsonl") -> list[Example]:
    """Sentences of random words, labels in turn: nothing to find."""
    rng = random.Random(start)
    return [
        example(" ".join(rng.choices(VOCABULARY, k=12)), LABELS[i % len(LABELS)], start + i, file=file)
        for i in range(n)
    ]


def audit(planted: Sequence[Example], **options: Any) -> Audit:
    return audit_examples({"all": [*clean(), *planted]}, **options)


def of(result: Audit, check: str) -> list[Finding]:
    assert check in CHECKS
    assert not result.failed
    return [finding for finding in result.findings if finding.check == check]


def lines(finding: Finding) -> list[int]:
    return [e.line for e in finding.examples]


def test_a_clean_file_is_quiet() -> None:
    members = clean()
    sides = {"train": members[:600], "validation": members[600:650], "test": members[650:]}
    result = audit_examples(
        sides, system="Classify.", tokens=lambda e: 20, special_tokens=["<|im_end|>"], max_tokens=20
    )
    assert result.findings == ()
    assert result.failed == ()
    assert {name for name, _ in result.skipped} == NOT_FOR_LABELS
    assert result.summary() == dict.fromkeys((name for name in CHECKS if name not in NOT_FOR_LABELS), 0)


def test_audit_json_has_the_documented_fields() -> None:
    result = audit([example("contact ann@example.org", "account", 5000)])
    shown = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert shown["examples"] == 1001
    (finding,) = shown["findings"]
    assert finding.keys() == {"check", "severity", "score", "message", "fix", "examples"}
    assert finding["check"] == "personal_data"
    assert finding["examples"] == [{"file": "data.jsonl", "line": 5000}]
    assert shown["summary"]["personal_data"] == 1
    assert shown["summary"] == result.summary()
    skipped = {"leakage", "synthetic_test", "truncation", *NOT_FOR_LABELS}
    assert {item["check"] for item in shown["skipped"]} == skipped
    assert not skipped & shown["summary"].keys()
    assert shown["failed"] == []


def test_a_check_that_breaks_is_reported_and_the_others_run() -> None:
    def tokens(e: Example) -> int:
        raise RuntimeError("no template")

    result = audit_examples(
        {"all": [*clean(), example("a b", "refund", 1), example("a b", "refund", 2)]},
        tokens=tokens,
        max_tokens=9,
    )
    assert result.failed == (("truncation", "RuntimeError: no template"),)
    assert "truncation" not in result.summary()
    assert result.summary()["exact_duplicate"] == 1


def test_nothing_to_audit() -> None:
    with pytest.raises(DataError):
        audit_examples({"train": []})
    with pytest.raises(ValueError, match="answer_kind"):
        audit_examples({"all": clean(3)}, answer_kind="essay")  # type: ignore[arg-type]


def test_findings_come_errors_first() -> None:
    result = audit(
        [example(f"ann{i}@example.org", "refund", 5000 + i) for i in range(2)]
        + [example("-----BEGIN RSA PRIVATE KEY-----", "refund", 6000)]
    )
    assert [f.severity for f in result.findings] == ["error", "warning", "warning"]


def test_exact_duplicates() -> None:
    asked = "Where is my order now?"
    planted = [example(asked, "delivery", 5000), example(f"  {asked.upper()} ", "Delivery", 5001)]
    (finding,) = of(audit(planted), "exact_duplicate")
    assert lines(finding) == [5000, 5001]
    assert finding.score == 1.0
    assert of(audit(planted), "near_duplicate") == []
    other_task = [
        example(asked, "delivery", 1, system="Route it."),
        example(asked, "delivery", 2, system="Name it."),
    ]
    assert of(audit(other_task), "exact_duplicate") == []


def test_near_duplicates() -> None:
    planted = [
        example("please tell me where my parcel from last week is", "delivery", 5000),
        example("please tell me where my big parcel from last week is", "delivery", 5001),
    ]
    (finding,) = of(audit(planted), "near_duplicate")
    assert lines(finding) == [5000, 5001]
    assert 0.5 <= (finding.score or 0) < 1
    assert of(audit(planted), "exact_duplicate") == []
    assert of(audit(planted), "label_conflict") == []


@pytest.mark.parametrize(
    "second",
    [
        "Where is the parcel that I ordered last week?",
        "WHERE is the parcel that I ordered last week",
        "hello, where is the parcel that I ordered last week please",
        "where is the parcle that I ordered last week",
        "where is the parcel that I orderd last week",
        "could you tell me where's the parcel that I ordered last week? thanks in advance",
    ],
)
def test_label_conflicts(second: str) -> None:
    planted = [
        example("where is the parcel that I ordered last week", "delivery", 5000),
        example("where is the parcel that I ordered last week", "delivery", 5001),
        example(second, "refund", 5002),
    ]
    (finding,) = of(audit(planted), "label_conflict")
    assert finding.severity == "error"
    assert lines(finding) == [5000, 5001, 5002]
    assert finding.score == pytest.approx(1 / 3)
    # One of 1003 examples must stay wrong.
    assert "accuracy ceiling is 99.9%" in finding.message
    assert "'delivery' (2), 'refund' (1)" in finding.message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "where is the parcel of order 1234 from last week",
            "where is the parcel of order 1235 from last week",
        ),
        ("is the parcel from last week here", "is the parcel from last week not here"),
        ("I want to cancel the order from last week", "I want to change the order from last week"),
        ("the weather " * 40 + "\n\nis it dry there?", "the weather " * 40 + "\n\nwas it night?"),
    ],
)
def test_what_matters_is_no_conflict(first: str, second: str) -> None:
    assert of(audit([example(first, "delivery", 1), example(second, "refund", 2)]), "label_conflict") == []


def test_a_column_that_was_not_read_is_named() -> None:
    def row(line: int, answer: str, contract: str) -> Example:
        messages = (Message("user", "is it binding?"), Message("assistant", answer))
        return Example(f"{line}", messages, "f", line, fields={"id": f"{line}", "contract": contract})

    planted = [row(1, "yes", "We shall pay."), row(2, "no", "We may pay.")]
    (finding,) = of(audit(planted, answer_kind="label"), "label_conflict")
    assert "column 'contract' differs" in finding.fix
    (finding,) = of(
        audit([row(1, "yes", "One text."), row(2, "no", "One text.")], answer_kind="label"), "label_conflict"
    )
    assert "column" not in finding.fix


def test_the_ceiling_is_never_rounded_up_to_perfect() -> None:
    members = [example(f"{e.input} {e.line}", e.answer, e.line) for e in clean(3000)]
    planted = [example("where is it", "billing", 5000), example("where is it", "refund", 5001)]
    (finding,) = of(audit_examples({"all": [*members, *planted]}), "label_conflict")
    assert "accuracy ceiling is 99.9%" in finding.message


def test_another_system_prompt_is_another_task() -> None:
    planted = [
        example("where is it", a, i, system=s) for i, (a, s) in enumerate([("y", "Route."), ("n", "Judge.")])
    ]
    assert of(audit(planted), "label_conflict") == []


def test_words_that_both_occur_are_not_slips() -> None:
    seen = Counter({"card": 30, "cart": 25, "parcel": 40, "parcle": 1, "from": 90, "form": 50})
    assert words_agree(["my", "parcel"], ["my", "parcle"], seen)
    assert not words_agree(["my", "card"], ["my", "cart"], seen)
    assert not words_agree(["from", "x"], ["form", "x"], seen)
    assert not words_agree(["7", "x"], ["8", "x"], seen)


def test_the_ceiling_counts_every_conflict() -> None:
    members = [example(f"question {i // 2}", "ab"[i % 2], i) for i in range(20)]
    findings = of(audit_examples({"all": members}, answer_kind="label"), "label_conflict")
    assert len(findings) == 10
    # Ten questions asked twice with two answers: one of each two is wrong.
    assert all("10 such conflicts the accuracy ceiling is 50.0%" in f.message for f in findings)


def test_free_answers_may_vary_and_json_is_compared_by_value() -> None:
    long = [
        "a long friendly answer that goes on and on for a good many words " + w for w in ("here", "there")
    ]
    planted = [example("tell me something nice", text, i) for i, text in enumerate(long)]
    (finding,) = of(audit(planted, answer_kind="text"), "label_conflict")
    assert finding.severity == "info"
    assert "ceiling" not in finding.message
    same = [example("read this form", '{"a": 1, "b": 2}', 1), example("read this form", '{"b":2,"a":1}', 2)]
    assert of(audit(same, answer_kind="json"), "label_conflict") == []
    other = [same[0], example("read this form", '{"b":3,"a":1}', 2)]
    assert len(of(audit(other, answer_kind="json"), "label_conflict")) == 1


def test_preferred_answers_may_differ() -> None:
    """Two good answers to one request, each better than a third: only the chosen ones are compared."""
    rows = [example("where is it", answer, n) for n, answer in enumerate(("here", "over there"), start=1)]
    preferred = [replace(row, rejected=("go away",)) for row in rows]
    (finding,) = of(audit(preferred, answer_kind="label"), "label_conflict")
    assert finding.severity == "info" and "ceiling" not in finding.message
    (finding,) = of(audit([preferred[0], rows[1]], answer_kind="label"), "label_conflict")
    assert finding.severity == "error" and "ceiling" in finding.message


def test_leakage() -> None:
    train, test = clean(300, file="train.jsonl"), clean(300, start=10_000, file="test.jsonl")
    same = example(train[5].input.upper(), "refund", 7, file="test.jsonl")
    near = example(train[9].input + " please", "refund", 8, file="test.jsonl")
    result = audit_examples({"train": train, "test": [*test, same, near]})
    exact, close = of(result, "leakage")
    assert [(e.file, e.line) for e in exact.examples] == [("train.jsonl", 5), ("test.jsonl", 7)]
    assert (exact.severity, exact.score) == ("error", 1.0)
    assert "1 in train, 1 in test" in exact.message
    assert [(e.file, e.line) for e in close.examples] == [("train.jsonl", 9), ("test.jsonl", 8)]
    assert close.severity == "warning"
    assert close.score == 1.0  # a courtesy is no difference
    assert of(result, "exact_duplicate") == of(result, "near_duplicate") == []


def test_what_looks_alike_and_asks_something_else_is_one_finding() -> None:
    """The numbers differ: neither a leak nor a duplicate, and yet worth a line."""
    asked = [f"where is the parcel of order {n} that I sent from my town" for n in (1234, 1235, 1236, 1237)]
    rows = [example(text, "delivery", 5000 + n) for n, text in enumerate(asked)]
    (finding,) = of(audit(rows), "near_duplicate")
    assert (finding.severity, finding.score, finding.examples) == ("info", None, ())
    assert "1 group of inputs look alike" in finding.message and "4 inputs in all" in finding.message
    train, test = clean(300, file="train.jsonl"), clean(300, start=10_000, file="test.jsonl")
    (leak,) = of(audit_examples({"train": [*train, *rows[:2]], "test": [*test, *rows[2:]]}), "leakage")
    assert (leak.severity, leak.score, leak.examples) == ("info", None, ())
    assert "2 of them in test" in leak.message


def test_class_imbalance() -> None:
    rare = [example(f"{VOCABULARY[i]} {VOCABULARY[-i]}", "legal", 5000 + i) for i in range(3)]
    dominant, few = of(audit(rare), "class_imbalance")
    assert "'billing' is the answer of 25% of the examples (250), 'legal' of 3" in dominant.message
    assert "'legal' (3)" in few.message
    assert lines(few) == [5000, 5001, 5002]
    single = [example(e.input, "yes", e.line) for e in clean(40)]
    (only,) = of(audit_examples({"all": single}), "class_imbalance")
    assert only.severity == "error"
    mostly = [example(e.input, "yes" if e.line % 10 else "no", e.line) for e in clean(100)]
    (majority,) = of(audit_examples({"all": mostly}), "class_imbalance")
    assert majority.score == pytest.approx(0.9)
    assert "scores 90.0%" in majority.message
    assert ("class_imbalance", "the answers are text, not labels") in audit([], answer_kind="text").skipped


def test_inconsistent_answers() -> None:
    spaced = [example("hear the bells", "refund ", 5000)]
    (finding,) = of(audit(spaced), "inconsistent_answers")
    assert lines(finding) == [5000]
    assert "1 answer with spaces" in finding.message
    cased = [example("hear the bells", "Refund.", 5000)]
    (finding,) = of(audit(cased), "inconsistent_answers")
    assert lines(finding) == [5000]
    assert "'refund', 'Refund.'" in finding.message


def test_inconsistent_json() -> None:
    form = [example(e.input, json.dumps({"city": "Bonn", "zip": e.line}), e.line) for e in clean(100)]
    assert of(audit_examples({"all": form}), "inconsistent_answers") == []
    planted = [example("one", "Bonn", 5000), example("two", '{"city": "Bonn", "plz": 1}', 5001)]
    plain, keys = of(audit_examples({"all": [*form, *planted]}), "inconsistent_answers")
    assert lines(plain) == [5000]
    assert "1 answer not JSON, while the others are JSON" in plain.message
    assert lines(keys) == [5001]
    assert "without 'zip', with 'plz'" in keys.message


def test_special_tokens() -> None:
    planted = [
        example("what does <|im_end|> do", "billing", 5000),
        example("what does [INST] do", "refund", 5001),
    ]
    own, foreign = of(audit(planted, special_tokens=["<|im_end|>", "\n"]), "special_token")
    assert (lines(own), own.severity, lines(foreign), foreign.severity) == (
        [5000],
        "error",
        [5001],
        "warning",
    )


def test_truncation() -> None:
    long = example("word " * 50, "refund", 5000)
    result = audit([long], tokens=lambda e: len(e.input.split()), max_tokens=20)
    (finding,) = of(result, "truncation")
    assert lines(finding) == [5000]
    assert finding.score == 2.5


def test_too_few_examples() -> None:
    (finding,) = of(audit_examples({"train": clean(300), "test": clean(40, start=9000)}), "too_few_examples")
    assert "with 40 test examples, only a difference of 19 points" in finding.message
    (finding,) = of(audit_examples({"all": clean(200)}), "too_few_examples")
    assert "with 60 test examples after the split" in finding.message
    (finding,) = of(audit_examples({"train": clean(300), "test": clean(4, start=9000)}), "too_few_examples")
    assert "no difference can be detected" in finding.message
    (finding,) = of(audit_examples({"train": clean(300), "test": clean(1, start=9000)}), "too_few_examples")
    assert "with 1 test example, no" in finding.message


def test_the_detectable_difference_solves_its_formula() -> None:
    # By hand for n = 40: d = (1.96 * 0.44721 + 0.84 * sqrt(0.2 - d^2)) / 6.3246; d = 0.19243 gives 0.19244.
    assert detectable_difference(40) == pytest.approx(0.1922, abs=3e-4)
    assert detectable_difference(0) == 1.0
    for difference in (0.02, 0.05, 0.1, 0.2):
        assert detectable_difference(examples_needed(difference)) <= difference
        assert detectable_difference(examples_needed(difference) - 1) > difference


def test_prompt_mismatch() -> None:
    own = [example("ring the bell", "refund", 5000, system="Be kind.")]
    (finding,) = of(audit(own), "prompt_mismatch")
    assert lines(finding) == [5000]
    assert "1 example with a system prompt, 1000 without" in finding.message
    (finding,) = of(audit(own, system="Be brief."), "prompt_mismatch")
    assert "'Be kind.'" in finding.message
    assert of(audit(own, system="Be kind."), "prompt_mismatch") == []
    (finding,) = of(audit_examples({"all": own}, system="Be brief.", answer_kind="text"), "prompt_mismatch")
    assert "never used" in finding.message
    assert of(audit_examples({"all": own}, answer_kind="text"), "prompt_mismatch") == []


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["yes", "no"] * 10, "label"),
        (["true"] * 5, "label"),
        ([f"answer {i}" for i in range(20)], "text"),
        (["word " * 40] * 20, "text"),
        (['{"a": 1}'] * 9 + ["no"], "json"),
        (["[1]", "[2]"], "json"),
        (["1", "2", "{broken"], "text"),
    ],
)
def test_kind_of_answers(answers: list[str], kind: str) -> None:
    assert kind_of_answers([example("q", answer) for answer in answers]) == kind
    assert kind_of_answers([]) == "text"
