"""The second process of a check on a large file: the same findings, and an end to it whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from luthier.audit import checks, sieve
from luthier.audit.file_audit import audit_file
from luthier.audit.finding import Finding, Material
from luthier.audit.sieve import OF_ONE, PATIENCE_SECONDS, Sieve, suspects
from luthier.audit.streaming import audit_stream
from luthier.errors import DataError
from luthier.examples.example import Example, Message

TOKENS = ("<|of_this_model|>",)
FAULTS: dict[str, dict[str, Any]] = {
    "secret": {"asked": "The key is ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8."},
    "special_token": {"asked": f"stop {TOKENS[0]} here"},
    "personal_data": {"worse": ("ask ann@example.org",)},
    "empty_answer": {"answer": "TODO"},
    "encoding": {"asked": "a cafÃ© noir"},
    "unfinished_answer": {"answer": '{"a": [1, 2'},
    "refusal": {"answer": "I'm sorry, but I can't assist with that."},
}


def example(line: int, asked: str = "where is it", answer: str = "", worse: Any = ()) -> Example:
    answer = answer or f"It is over there, behind house {line}."
    said = Message("user", f"{asked} {line}"), Message("assistant", answer)
    return Example(str(line), said, "f", line, rejected=worse)


def faulty(n: int = 300) -> list[Example]:
    faults = list(FAULTS.values())
    return [example(k, **(faults[k // 7 % len(faults)] if k % 7 == 0 else {})) for k in range(n)]


def children(pid: int | None = None) -> list[psutil.Process]:
    """Second processes; `multiprocessing` has a small one of its own, which ends with the first."""
    found = psutil.Process(pid).children(recursive=True)
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


def test_every_check_of_single_examples_has_its_fault_seen() -> None:
    assert set(OF_ONE) == set(FAULTS)
    assert set(OF_ONE) >= set(checks.OF_ONE_EXAMPLE) - {"truncation"}
    for fault in FAULTS.values():
        part = [example(1), example(2, **fault), example(3)]
        assert suspects([(e.texts, len(e.messages), e.tools) for e in part], TOKENS) == [1]


def test_the_answer_is_told_from_the_rejected_ones() -> None:
    whole, cut = "It is behind the house.", '{"a": [1, 2'
    part = [example(1, answer=cut, worse=(whole,)), example(2, answer=whole, worse=(cut,))]
    assert suspects([(e.texts, len(e.messages), e.tools) for e in part], TOKENS) == [0]


def test_a_secret_in_the_tools_on_offer_is_found_by_two_processes_too() -> None:
    tool = {"type": "function", "function": {"name": "a", "description": FAULTS["secret"]["asked"]}}
    part = [*map(example, range(20)), replace(example(20), tools=(tool,))]
    audit = audit_stream(part, part_examples=16, second_process=True)
    assert [f.examples[0].line for f in audit.findings if f.check == "secret"] == [20]


def test_any_place_of_a_part_is_told() -> None:
    with Sieve(TOKENS) as second:
        for count in (1, 7, 8, 9, 12, 16, 17):
            second.put([*map(example, range(count - 1)), example(count, **FAULTS["secret"])])
            assert second.get() == [count - 1]
            second.put([example(1, **FAULTS["special_token"]), *map(example, range(2, count + 1))])
            assert second.get() == [0]
        told = time.monotonic()
    assert time.monotonic() - told < PATIENCE_SECONDS, "it ends by itself"


def test_where_a_check_breaks_all_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(material: Material) -> list[Finding]:
        raise RuntimeError("no")

    monkeypatch.setitem(sieve.OF_ONE, "secret", broken)
    assert suspects([(["a", "b"], 2, [])] * 3, TOKENS) == [0, 1, 2]


def test_findings_are_those_of_one_process() -> None:
    one = audit_stream(faulty(), special_tokens=TOKENS, part_examples=16)
    two = audit_stream(faulty(), special_tokens=TOKENS, part_examples=16, second_process=True)
    assert json.dumps(two.as_json()) == json.dumps(one.as_json())
    assert all(one.summary()[name] > 4 for name in FAULTS)
    assert children() == []


def test_where_it_dies_all_examples_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Sieve):
        def __init__(self, special_tokens: Any) -> None:
            super().__init__(special_tokens)
            self.puts = 0

        def put(self, part: Any) -> None:
            self.puts += 1
            if self.puts == 7:
                self.process.kill()
                self.process.join()
            super().put(part)

    one = audit_stream(faulty(), special_tokens=TOKENS, part_examples=16)
    monkeypatch.setattr("luthier.audit.streaming.Sieve", Dying)
    two = audit_stream(faulty(), special_tokens=TOKENS, part_examples=16, second_process=True)
    assert json.dumps(two.as_json()) == json.dumps(one.as_json())


def test_where_no_process_is_to_be_had_one_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise OSError("resource temporarily unavailable")

    one = audit_stream(faulty(70), special_tokens=TOKENS, part_examples=16)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    two = audit_stream(faulty(70), special_tokens=TOKENS, part_examples=16, second_process=True)
    assert json.dumps(two.as_json()) == json.dumps(one.as_json())


def test_an_error_while_reading_ends_it() -> None:
    def breaking() -> Iterator[Example]:
        yield from faulty(100)
        raise DataError("not valid JSON", where="f:101")

    with pytest.raises(DataError, match="JSON"):
        audit_stream(breaking(), part_examples=16, second_process=True)
    assert children() == []


def test_answers_that_nobody_read_yet_never_make_both_wait() -> None:
    """Windows holds 8 KB: the answers to all the parts on their way must fit, whatever they say."""
    from multiprocessing.reduction import ForkingPickler

    from luthier.audit.streaming import PART_EXAMPLES, PARTS_AHEAD

    largest = len(ForkingPickler.dumps((1 << PART_EXAMPLES) - 1))
    assert (PARTS_AHEAD + 1) * (largest + 16) < 8192


def write(path: Path, n: int) -> Path:
    rows = [{"prompt": e.input, "completion": e.answer} for e in faulty(n)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_small_files_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("started")

    path = write(tmp_path / "data.jsonl", 120)
    monkeypatch.setattr("luthier.audit.streaming.Sieve", refuse)
    assert audit_file(path, second_process=True).audit.examples == 120
    assert audit_file(path, held_examples=50).audit.examples == 120
    with pytest.raises(AssertionError, match="started"):
        audit_file(path, held_examples=50, second_process=True)


SLOW = """
import signal, sys, time
from luthier.audit.streaming import audit_stream
from luthier.examples.example import Example, Message

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background

def slow():
    for k in range(10**6):
        if k == 200:
            print("ready", flush=True)
        if k > 200:
            time.sleep(0.01)
        yield Example(str(k), (Message("user", f"q {k}"), Message("assistant", "a")), "f", k)

if __name__ == "__main__":
    audit_stream(slow(), part_examples=16, second_process=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of process groups are POSIX")
def test_ctrl_c_ends_both(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        others = children(process.pid)
        assert len(others) == 1
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0 and errors.count("KeyboardInterrupt") == 1  # the second says nothing
    deadline = time.monotonic() + 30
    while any(other.is_running() and other.status() != psutil.STATUS_ZOMBIE for other in others):
        assert time.monotonic() < deadline
        time.sleep(0.05)
