"""Large files: the same findings as in memory, in parts of any size, with bounded time and memory."""

import gc
import json
import random
import resource
import subprocess
import sys
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.audit import Audit, audit_examples, checks, encoding, personal_data, refusal, secret
from luthier.audit.file_audit import audit_file
from luthier.audit.finding import Finding, Material
from luthier.audit.kept import FINDINGS_KEPT, Kept, Sample
from luthier.audit.ledger import groups, tally
from luthier.audit.repeats import PLACES
from luthier.audit.streaming import audit_stream
from luthier.errors import DataError
from luthier.examples.answers import kind_of_answers
from luthier.examples.example import Example, Message
from luthier.examples.wording import normalise

COUNTED = (  # of these every example is looked at
    "exact_duplicate", "label_conflict", "judgement_conflict", "class_imbalance", "inconsistent_answers",
    "prompt_mismatch", "too_few_examples", "refusal", "unfinished_answer", "copied_answer",
    *checks.OF_ONE_EXAMPLE,
)  # fmt: skip
REQUESTS = (
    "alpha", "Alpha!", "bravo kilo", "write to ann@example.org", "a <|im_end|> b", "zulu",
    "say no to it again",
)  # fmt: skip
ANSWERS = (
    "yes", "Yes", "no", "no ", "maybe", '{"a": 1}', '{"a": 2}', '{"b": 1, "a": 0}', "[1]", "TODO",
    "it depends on the weather and on much else that nobody can know before it has happened at last",
    "say no to it again", "I'm sorry, but I can't assist with that.", '{"a": [1, 2',
    "Sure! Here is the poem: oh",
)  # fmt: skip


@st.composite
def example(draw: st.DrawFn) -> dict[str, Any]:
    system = draw(st.sampled_from([None, None, "Be brief.", "be brief", "Other."]))
    return {
        "messages": [
            *([("system", system)] if system else []),
            ("user", draw(st.sampled_from(REQUESTS))),
            ("assistant", draw(st.sampled_from(ANSWERS))),
        ],
        "rejected": draw(st.sampled_from([(), (), (), ("no",), ("worse", "yes")])),
        "wanted": draw(st.sampled_from([True, True, True, False])),
    }


def built(rows: Sequence[dict[str, Any]]) -> list[Example]:
    return [
        Example(
            f"{line}", tuple(Message(*m) for m in row["messages"]), "data.jsonl", line,
            rejected=row["rejected"], wanted=row["wanted"],
        )
        for line, row in enumerate(rows, start=1)
    ]  # fmt: skip


def told(audit: Audit, names: Sequence[str]) -> list[Any]:
    return [
        (f.check, f.severity, f.score, f.message, f.fix, [e.line for e in f.examples][:PLACES])
        for f in audit.findings
        if f.check in names
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(example(), min_size=1, max_size=30), st.integers(1, 31), st.sampled_from([None, "Be brief."]))
def test_parts_of_any_size_give_the_findings_of_the_whole(
    rows: list[dict[str, Any]], part_examples: int, system: str | None
) -> None:
    """No request is a near-duplicate of another: label conflicts are those by hash alone."""
    examples = built(rows)
    options: dict[str, Any] = {"special_tokens": ["<|im_end|>"], "system": system}
    if not any(e.wanted for e in examples):
        with pytest.raises(DataError, match="not to give"):
            audit_stream(examples, part_examples=part_examples, **options)
        return
    whole = audit_examples({"all": examples}, **options)
    streamed = audit_stream(examples, part_examples=part_examples, **options)
    assert whole.failed == streamed.failed == ()
    assert told(streamed, COUNTED) == told(whole, COUNTED)
    assert told(streamed, tuple(checks.CHECKS)) == told(whole, tuple(checks.CHECKS))
    assert streamed.summary() == whole.summary()
    assert streamed.severities() == whole.severities()
    assert dict(streamed.skipped) == dict(whole.skipped)
    assert streamed.examples == len(examples)
    assert streamed.sampled == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["Yes", "yes", "no", "NO", "oh no", "a", "b", "c"]), min_size=1, max_size=60))
def test_labels_are_counted_as_in_memory(answers: list[str]) -> None:
    examples = [
        Example(str(n), (Message("user", f"q{n}"), Message("assistant", answer)), "f", n)
        for n, answer in enumerate(answers, start=1)
    ]
    names = ("class_imbalance", "inconsistent_answers", "too_few_examples")
    for kind in (None, "label"):
        whole = audit_examples({"all": examples}, answer_kind=kind)
        streamed = audit_stream(examples, part_examples=7, answer_kind=kind)
        assert told(streamed, names) == told(whole, names)
    assert kind_of_answers(examples) in ("label", "text")


def talk(n: int, start: int = 0) -> list[Example]:
    """Examples that are all different, with labels in turn."""
    rng = random.Random(start)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(500)]
    return [
        Example(
            f"{start + i}",
            (Message("user", " ".join(rng.choices(words, k=10))), Message("assistant", f"label {i % 4}")),
            "f",
            start + i,
        )
        for i in range(n)
    ]


ENDINGS = (
    "before the end.", "and the", "then they stop", "in the moun", "on a mountain", "mountain view!",
    "of one-", "", "Let me know if you need anything else.",
)  # fmt: skip
STARTS = (
    "Sure! Here is",
    "There was once",
    "```python\nx\n",
    "w" * 90,
    "The old house stands on the hill where we",
)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 5), st.integers(50, 130),
    st.integers(1, 131), st.sampled_from([None, "text", "label"]),
)  # fmt: skip
def test_ends_of_answers_are_judged_as_in_memory(
    seed: int, endings: int, starts: int, n: int, part_examples: int, kind: Any
) -> None:
    rng = random.Random(seed)
    words = ["river", "house", "walks", "over", "green", "mountain", "finds", "small", "stone", "mounting"]
    examples = []
    for line in range(1, n + 1):
        said = " ".join(rng.choices(words, k=rng.choice([3, 6, 8, 14])))
        answer = f"{rng.choice(STARTS[:starts])} {said} {rng.choice(ENDINGS[:endings])}"
        turns = Message("user", f"q{line}" if rng.random() < 0.9 else answer), Message("assistant", answer)
        examples.append(Example(str(line), turns, "f", line, wanted=rng.random() < 0.95))
    whole = audit_examples({"all": examples}, answer_kind=kind)
    streamed = audit_stream(examples, part_examples=part_examples, answer_kind=kind)
    names = ("unfinished_answer", "refusal", "copied_answer")
    assert told(streamed, names) == told(whole, names)
    assert whole.failed == streamed.failed == ()
    for name in names:
        assert streamed.summary().get(name) == whole.summary().get(name)
    assert dict(streamed.skipped) == dict(whole.skipped)


def test_answers_are_all_looked_at_where_a_sample_shows_how_they_end() -> None:
    def ended(line: int) -> str:
        said = f"The house number {line} stands on the hill over there, and people"
        return (
            f"{said} walk the" if line % 4 == 0 else f"{said} live in it." if line % 4 < 3 else f"{said}, and"
        )

    examples = [
        Example(str(n), (Message("user", f"q{n}"), Message("assistant", ended(n))), "f", n)
        for n in range(800)
    ]
    audit = audit_stream(examples, sample=Sample(100), part_examples=90)
    assert not {"unfinished_answer", "refusal", "copied_answer"} & set(audit.sampled)
    (found,) = [f for f in audit.findings if f.check == "unfinished_answer"]
    assert (found.total, found.score, found.severity) == (400, 0.5, "warning")
    assert found.message.startswith(
        "400 answers without a mark at the end (50%), many of them in mid-sentence"
    )
    assert [e.line for e in found.examples[:4]] == [0, 3, 4, 7] and len(found.examples) == PLACES


def test_kinds_of_answers_that_change_on_the_way_are_judged_by_all() -> None:
    """The first part has labels alone, so the kind that is guessed first is not the one at the end."""
    refused = Message("user", "q"), Message("assistant", "I'm sorry, but I can't assist with that.")
    labels = talk(40)
    texts = [
        Example(f"t{n}", (Message("user", f"q{n}"), Message("assistant", f"Text {n} says so. " * 5)), "f", n)
        for n in range(200)
    ]
    some = [*labels[:39], Example("r", refused, "f", 39), *texts]
    audit = audit_stream(some, part_examples=40)
    assert [e.line for f in audit.findings if f.check == "refusal" for e in f.examples] == [39]
    reverse = [*texts[:30], Example("r", refused, "f", 39), *(labels * 9)]
    audit = audit_stream(reverse, part_examples=40)
    assert dict(audit.skipped)["refusal"] == "the answers are labels"
    assert not [f for f in audit.findings if f.check == "refusal"] and "refusal" not in audit.summary()


def test_what_looks_at_all_together_looks_at_a_sample_and_says_so() -> None:
    near = talk(400)
    twins = [
        Example(f"x{e.id}", (Message("user", e.input + " extra"), e.messages[-1]), "f", 1000 + e.line)
        for e in near
    ]
    audit = audit_stream([*near, *twins], sample=Sample(500), part_examples=100)
    assert audit.sampled["near_duplicate"] == 500
    assert "exact_duplicate" not in audit.sampled
    found = [f for f in audit.findings if f.check == "near_duplicate"]
    assert 100 < len(found) < 250  # a pair is in the sample with probability 0.39
    assert all(f.message.endswith("(looked at 500 of 800 examples)") for f in found)
    assert audit.as_json()["sampled"]["near_duplicate"] == 500
    again = audit_stream([*near, *twins], sample=Sample(500), part_examples=33)
    assert told(again, ("near_duplicate",)) == told(audit, ("near_duplicate",))


def test_every_finding_is_counted_and_the_first_ones_are_kept() -> None:
    many = FINDINGS_KEPT + 7
    pairs = talk(many)
    twice = [*pairs, *(Example(f"t{e.id}", e.messages, "f", 5000 + e.line) for e in pairs)]
    mail = Message("user", "ask ann@example.org"), Message("assistant", "label 1")
    crowd = [Example(f"m{i}", mail, "f", 9000 + i) for i in range(2 * PLACES)]
    audit = audit_stream([*twice, *crowd], sample=Sample(50))
    kept = [f for f in audit.findings if f.check == "exact_duplicate"]
    assert len(kept) == FINDINGS_KEPT
    assert audit.summary()["exact_duplicate"] == many + 1
    assert audit.as_json()["summary"]["exact_duplicate"] == many + 1
    assert audit.severities()["warning"] >= many + 1 + 2 * PLACES
    assert [e.line for e in kept[3].examples] == [3, 5003]
    last = audit_stream([*twice[:10], *crowd], sample=Sample(50)).findings
    (copies,) = [f for f in last if f.check == "exact_duplicate"]
    assert copies.message == f"the same example {2 * PLACES} times"
    assert len(copies.examples) == PLACES
    assert copies.as_json()["total"] == copies.total == 2 * PLACES


def test_a_check_that_breaks_in_one_part_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(material: Any) -> list[Finding]:
        if any(e.line == 150 for e in material.all):
            raise RuntimeError("no")
        return [Finding("secret", "error", None, "found", "", ()) for _ in material.all]

    monkeypatch.setitem(checks.CHECKS, "secret", broken)
    audit = audit_stream(talk(200), part_examples=20)
    assert audit.failed == (("secret", "RuntimeError: no"),)
    assert "secret" not in audit.summary()
    assert not any(f.check == "secret" for f in audit.findings)


def test_texts_that_nobody_asked_for_have_no_findings_on_answers() -> None:
    texts = [Example(str(n), (Message("assistant", "TODO"),), "f", n) for n in range(30)]
    whole, streamed = audit_examples({"all": texts}), audit_stream(texts, part_examples=7)
    assert streamed.summary() == whole.summary()
    assert dict(streamed.skipped) == dict(whole.skipped)
    assert "empty_answer" not in streamed.summary()


def test_tokens_are_counted_only_where_there_may_be_too_many() -> None:
    short, long = (
        talk(50),
        Example("l", (Message("user", "word " * 3000), Message("assistant", "a")), "f", 99),
    )
    counted: list[int] = []

    def tokens(e: Example) -> int:
        counted.append(e.line)
        return len(e.input.split())

    audit = audit_stream([*short, long], tokens=tokens, max_tokens=2000, sample=Sample(5))
    (finding,) = [f for f in audit.findings if f.check == "truncation"]
    assert finding.message == "3000 tokens, where 2000 fit"
    assert counted.count(99) >= 1
    assert len(counted) < 10


def test_the_sample_is_fair_and_reproducible() -> None:
    hits = [0] * 100
    population = talk(100)
    for seed in range(300):
        sample = Sample(10)
        sample._random = random.Random(seed)
        sample.add(population[:37])
        sample.add(population[37:])
        drawn = sample.examples()
        assert len({e.id for e in drawn}) == 10
        assert [e.line for e in drawn] == sorted(e.line for e in drawn)
        for e in drawn:
            hits[e.line] += 1
    assert min(hits) >= 10 and max(hits) <= 52  # 30 expected, standard deviation 5.2


def test_groups_and_tallies_are_in_the_order_of_the_file() -> None:
    import numpy as np

    keys = np.array([7, 3, 7, 9, 3, 7, 1], dtype=np.int64)
    assert [g.tolist() for g in groups(keys)] == [[0, 2, 5], [1, 4]]
    distinct, counts, first = tally(keys)
    assert distinct.tolist() == [7, 3, 9, 1]
    assert counts.tolist() == [3, 2, 1, 1]
    assert first.tolist() == [0, 1, 3, 6]


def test_kept_counts_all_and_drops_a_check() -> None:
    kept = Kept()
    kept.add(Finding("a", "error", None, str(n), "", ()) for n in range(FINDINGS_KEPT + 2))
    kept.add([Finding("a", "info", None, "late", "", ()), Finding("b", "info", None, "b", "", ())])
    assert len(kept.findings("a")) == FINDINGS_KEPT + 1
    assert kept.counts == {("a", "error"): FINDINGS_KEPT + 2, ("a", "info"): 1, ("b", "info"): 1}
    kept.drop("a")
    assert kept.findings("a") == [] and set(kept.counts) == {("b", "info")}


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aB.,!? \n\t()…«»x-'\u3000\x1d"), max_size=30) | st.text(max_size=30))
def test_normalised_wording_is_that_of_stripped_words(text: str) -> None:
    marks = ".,;:!?\"'`()[]…“”‘’«»。、，！？：；（）「」"
    words = (word.strip(marks) for word in unicodedata.normalize("NFC", text).casefold().split())
    assert normalise(text) == " ".join(word for word in words if word)


def test_normalising_a_long_run_of_marks_takes_linear_time() -> None:
    began = time.process_time()
    assert normalise("x" + "." * 200_000 + "y") == "x" + "." * 200_000 + "y"
    assert time.process_time() - began < 2


def write(path: Path, rows: Sequence[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows_with_faults(n: int) -> list[Any]:
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(400)]
    rows: list[Any] = [
        {"prompt": " ".join(rng.choices(words, k=8)), "completion": f"answer {i % 5}"} for i in range(n)
    ]
    rows[n // 2] = rows[3]
    rows[n - 2] = dict(rows[5], completion="another answer")
    rows[10] = "{broken"
    rows[n // 3] = ""
    return rows


def test_a_file_is_held_or_streamed_with_the_same_findings(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", rows_with_faults(1500))
    held = audit_file(path, strict=False)
    streamed = audit_file(path, strict=False, held_examples=200)
    assert not held.streamed and len(held.examples) == 1498
    assert told(streamed.audit, COUNTED) == told(held.audit, COUNTED)
    (copies,) = [f for f in streamed.audit.findings if f.check == "exact_duplicate"]
    assert [e.where for e in copies.examples] == [f"{path}:4", f"{path}:751"]
    (conflict,) = [f for f in streamed.audit.findings if f.check == "label_conflict"]
    assert "'another answer' (1)" in conflict.message
    assert streamed.left_out == held.left_out == 1
    assert [p.where for p in streamed.problems] == [f"{path}:11"]
    usual = gc.get_threshold()
    with pytest.raises(DataError, match="JSON") as refused:
        audit_file(path, held_examples=5)
    assert gc.get_threshold() == usual
    assert refused.value.where == f"{path}:11"


def test_examples_are_looked_up_in_any_kind_of_file(tmp_path: Path) -> None:
    rows = [row for row in rows_with_faults(300) if isinstance(row, dict)]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    table = tmp_path / "table.csv"
    table.write_text("prompt,completion\n" + "\n".join(f"{r['prompt']},{r['completion']}" for r in rows))
    folder = tmp_path / "both"
    folder.mkdir()
    write(folder / "a.jsonl", rows[:150])
    write(folder / "b.jsonl", rows[150:])
    for path in (listed, table, folder):
        held, streamed = audit_file(path), audit_file(path, held_examples=50)
        names = ("exact_duplicate", "label_conflict")
        assert told(streamed.audit, names) == told(held.audit, names)
        assert len(told(streamed.audit, names)) == 2
        assert streamed.format == held.format == "prompt/completion"


def test_an_empty_file_is_refused_as_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", ["{broken"] * 3)
    with pytest.raises(DataError):
        audit_file(path, strict=False)


@pytest.mark.slow
def test_a_hundred_thousand_examples_take_little_time_and_memory(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(5000)]
    path = tmp_path / "large.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i in range(100_000):
            row = {
                "prompt": " ".join(rng.choices(words, k=40)),
                "completion": " ".join(rng.choices(words, k=20)),
            }
            if i % 10_000 == 99:
                row["completion"] += " ghp_" + "".join(
                    rng.choices("abcdefghijklmnopqrstuvwxyzABCDEF0123456789", k=36)
                )
            file.write(json.dumps(row) + "\n")
    code = (
        "import sys\nfrom luthier.audit.file_audit import audit_file\n"
        "told = audit_file(sys.argv[1], held_examples=10_000)\n"
        "print(told.audit.summary()['secret'], told.audit.examples, told.streamed)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.split() == ["10", "100000", "True"]
    assert used.ru_utime - before < 90
    assert used.ru_maxrss < 1_000_000  # kilobytes


HELD_BY_TEXTS = (
    "AKIA", "IOSFODNN7ABCDEFG", "ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "api key: ", "token = ",
    "secret ", "password: ", "hunter22x9", "Zm9vYmFyYmF6cXV4MTIzNDU2", "-----BEGIN RSA PRIVATE KEY-----",
    "https://u:", "p4ssw0rd@h.org", "DE89 3704 0044 0532 0130 00", "GB33BUKB20201555555555", "8.8.8.8",
    "+49 30 1234567", "(415) 555-2671", "4111 1111 1111 1111", "203.45.67.89", "2001:db8::1", "order 12",
    "٣٤٥", "é", " ", "\n", "the cat", "1", "A", "10.0.0.1", "::", "fe80:", "a:b:", "AT61", "1904", "3002",
    "+43", "sk-", "eyJ", "abcdefghijklmno", "\u00a0", "\u3000", "\x1c", "\u2028", "’", "&amp;", "&", "\x07",
    "\u200b", "Ã©", "\ufffd", "I can’t assist with that", "as an ai", "Of course! Here is",
    "I'd be happy to help", "Claro: aquí",
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(HELD_BY_TEXTS), max_size=8))
def test_quick_looks_never_hide_what_the_patterns_find(parts: list[str]) -> None:
    held = Example("1", (Message("user", "".join(parts)), Message("assistant", "".join(parts[::-1]))), "f", 1)

    def found() -> list[Finding]:
        material = Material({"all": [held]}, None, None, (), None, "text")
        return [
            *secret.find_secrets(material),
            *personal_data.find_personal_data(material),
            *encoding.find_encoding_faults(material),
            *refusal.find_refusals(material),
        ]

    quick = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal_data, "_may_hold", lambda text: True)
        patch.setattr(personal_data, "_shape", lambda text: b"AA00")
        patch.setattr(personal_data, "_may_number", lambda shape: True)
        patch.setattr(personal_data, "_may_name_machine", lambda text, shape: True)
        patch.setattr(secret, "_may_hold", lambda text: True)
        patch.setattr(secret, "_may_assign", lambda text, long: True)
        patch.setattr(secret, "_LOOKED_FOR", dict.fromkeys(secret._LOOKED_FOR, secret._PATTERNS))
        patch.setattr(encoding, "_is_plain", lambda text: False)
        patch.setattr(refusal, "may_hold_phrase", lambda said: True)
        patch.setattr(refusal, "OPENING_WORDS", ("",))
        assert found() == quick
