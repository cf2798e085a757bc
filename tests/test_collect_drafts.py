"""`luthier collect drafts`: a model behind a real HTTP server; its replies are kept and never paid twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import Sent, serving
from typer.testing import CliRunner, Result

from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.collect.asking import Teacher, read_input
from luthier.collect.likeness import EXACT, NEAR, find_known
from luthier.collect.tally import NotTakenError
from luthier.errors import DataError
from luthier.examples import read_examples
from luthier.grade import chat_endpoint

THINGS = (
    "kettle",
    "ladder",
    "violin",
    "candle",
    "hammer",
    "carpet",
    "mirror",
    "basket",
    "lantern",
    "compass",
)
LUTHIER = (sys.executable, "-c", "from luthier.cli.main import main; main()")
LABELS = ("billing", "shipping")
NEW = (
    "My kettle arrived without its lid, who sends me another?",
    "You charged my card twice in June, please look into it.",
    "Can the sofa be brought on a Saturday morning instead?",
    "The voucher that I was given does not work at the till.",
    "A neighbour says she has my letter, is that how you deliver?",
    "Why does the invoice name a town where I never lived?",
)


def told(text: str, *, prompt: int = 100, answer: int = 10, finish: str = "stop") -> Sent:
    """A reply with the tokens that an endpoint counts."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return Sent(body=json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}))


def is_asked_for_input(body: dict[str, Any]) -> bool:
    return "new inputs for a data set" in body["messages"][0]["content"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def examples(count: int = 10, *, system: str | None = "Route it.") -> list[dict[str, Any]]:
    before = [{"role": "system", "content": system}] if system else []
    return [
        {
            "messages": [
                *before,
                {"role": "user", "content": f"Where is the {THINGS[n % 10]} that I ordered {n} weeks ago?"},
                {"role": "assistant", "content": LABELS[n % 2]},
            ]
        }
        for n in range(count)
    ]


@pytest.fixture
def draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`luthier collect drafts --from mine.jsonl --out drafts.jsonl ...` in a folder with examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 120)
    monkeypatch.setattr(chat_endpoint, "FIRST_WAIT", 0.01)
    write(tmp_path / "mine.jsonl", examples())

    def call(url: str, *arguments: object, model: str = "big-1") -> Result:
        own = ("--from", "mine.jsonl", "--endpoint", url, "--model", model, "--out", "drafts.jsonl")
        result = CliRunner().invoke(app, ["collect", "drafts", *own, *map(str, arguments)])
        assert "Traceback" not in result.output
        return result

    return call


# --- answers to prompts -----------------------------------------------------------------------------


def test_answers_are_drafted_and_marked(draft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("ask.jsonl"), [{"prompt": NEW[0]}, {"messages": [{"role": "user", "content": NEW[1]}]}])
    monkeypatch.setenv("BIG_KEY", "sk-secret-0123456789")
    with serving(lambda body, n: told(" Shipping\n")) as server:
        result = draft(
            server.url,
            "--prompts",
            "ask.jsonl",
            "--key-env",
            "BIG_KEY",
            "--prices",
            2,
            10,
            "--licence",
            "ours",
        )
    assert result.exit_code == 0, result.output
    assert "2 of 2 requests taken: drafts.jsonl" in result.stdout
    assert "200 tokens of prompts, 20 of answers: 0.0006" in result.stdout
    assert "luthier collect review drafts.jsonl" in result.stdout
    first, second = read("drafts.jsonl")
    assert first["messages"] == [
        {"role": "system", "content": "Route it."},
        {"role": "user", "content": NEW[0]},
        {"role": "assistant", "content": "shipping"},  # as the examples spell it
    ]
    assert second["messages"][1]["content"] == NEW[1]
    origin = first["provenance"]
    assert origin.pop("prompt_sha256") != second["provenance"]["prompt_sha256"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", origin.pop("date"))
    assert origin == {"source": "big-1 at 127.0.0.1", "licence": "ours", "synthetic": True, "model": "big-1"}
    assert {body["Authorization"] for body in server.headers} == {"Bearer sk-secret-0123456789"}
    assert not any("sk-secret" in path.read_text() for path in Path().iterdir() if path.is_file())
    asked = server.requests[0]["messages"]
    assert [m["role"] for m in asked] == ["system", *["user", "assistant"] * 4, "user"]
    assert {m["content"] for m in asked if m["role"] == "assistant"} <= set(LABELS)
    assert len(read_examples("drafts.jsonl").examples) == 2


def test_what_was_asked_before_is_not_asked_again(draft: Any) -> None:
    own = examples()[3]["messages"][1]["content"]
    rows = [own.upper(), own.replace("weeks ago", "weeks back"), NEW[0], NEW[0], NEW[1], "  "]
    write(Path("ask.jsonl"), [{"prompt": text} for text in rows])
    with serving(lambda body, n: told("billing")) as server:
        result = draft(server.url, "--prompts", "ask.jsonl")
    assert [row["messages"][1]["content"] for row in read("drafts.jsonl")] == [NEW[0], NEW[1]]
    assert len(server.requests) == 2
    assert re.search(rf"2 +{EXACT} +ask.jsonl:1, ask.jsonl:4", result.stdout)
    assert re.search(rf"1 +{NEAR} +ask.jsonl:2", result.stdout)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (told("neither of them"), "none of the examples' 2 labels"),
        (told("I'm sorry, but I can't assist with that."), "the model refused"),
        (told("shipp", finish="length"), "cut off"),
        (told("shipping", finish="content_filter"), "content filter"),
    ],
)
def test_answers_that_are_of_no_use_are_left_out(reply: Sent, reason: str, draft: Any) -> None:
    write(Path("ask.jsonl"), [{"prompt": NEW[0]}, {"prompt": NEW[1]}])
    with serving(lambda body, n: reply if NEW[0] in json.dumps(body) else told("billing")) as server:
        result = draft(server.url, "--prompts", "ask.jsonl")
        assert len(read("drafts.jsonl")) == 1 and reason in " ".join(result.stdout.split())
        draft(server.url, "--prompts", "ask.jsonl")
        assert len(server.requests) == 2  # what was of no use was paid for too


def test_json_answers_lose_their_fence(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": json.dumps({"n": i})}]}
        for i, t in enumerate(THINGS)
    ]
    teacher = Teacher.of(read_examples(write(tmp_path / "j.jsonl", rows)).examples, 2, 0, None)
    assert teacher.check_answer('```json\n{"n": 3}\n```') == '{"n": 3}'
    with pytest.raises(NotTakenError, match="no JSON"):
        teacher.check_answer("three")


def test_another_system_prompt_is_told_and_not_kept(draft: Any) -> None:
    write(Path("ask.jsonl"), [{"prompt": NEW[0]}])
    with serving(lambda body, n: told("billing")) as server:
        draft(server.url, "--prompts", "ask.jsonl", "--system", "You know our policy.", "--shots", 0)
    assert [m["content"] for m in server.requests[0]["messages"]] == ["You know our policy.", NEW[0]]
    assert read("drafts.jsonl")[0]["messages"][0]["content"] == "Route it."


# --- new requests -----------------------------------------------------------------------------------


def test_new_requests_are_thought_of_and_compared(draft: Any) -> None:
    own = examples()[0]["messages"][1]["content"]
    ideas = [
        own,
        NEW[0],
        f"<input>\n{NEW[1]}\n</input>",
        NEW[0] + "!",
        json.dumps(NEW[2]),
        NEW[3],
        NEW[4],
        NEW[5],
    ]
    made: list[str] = []

    def behave(body: dict[str, Any], n: int) -> Sent:
        if is_asked_for_input(body):
            made.append(ideas[len(made) % len(ideas)])
            return told(made[-1], prompt=7, answer=3)
        return told("shipping")

    with serving(behave) as server:
        result = draft(server.url, "--like", 4)
    assert result.exit_code == 0, result.output
    found = read("drafts.jsonl")
    texts = [row["messages"][1]["content"] for row in found]
    assert len(found) == len(set(texts)) == 4 and {text.removesuffix("!") for text in texts} <= set(NEW)
    assert EXACT in result.stdout
    inputs = [body for body in server.requests if is_asked_for_input(body)]
    answers = [body for body in server.requests if not is_asked_for_input(body)]
    assert len(answers) == 4 and {body["temperature"] for body in answers} == {0}
    assert {body["temperature"] for body in inputs} == {1}
    assert f"{7 * len(inputs) + 400} tokens of prompts, {3 * len(inputs) + 40} of answers" in result.stdout
    assert len({body["messages"][1]["content"] for body in inputs}) == len(inputs)  # never the same examples


def test_a_model_that_repeats_itself_comes_to_an_end(draft: Any) -> None:
    with serving(lambda body, n: told(NEW[0] if is_asked_for_input(body) else "billing")) as server:
        result = draft(server.url, "--like", 3)
    assert len(read("drafts.jsonl")) == 1
    assert "2 drafts fewer than wanted" in result.stdout
    assert len(server.requests) <= 3 * 3 + 1


def test_more_can_be_asked_for_later(draft: Any) -> None:
    ideas = iter(NEW)
    with serving(lambda body, n: told(next(ideas) if is_asked_for_input(body) else "billing")) as server:
        draft(server.url, "--like", 2)
        assert len(read("drafts.jsonl")) == 2
        draft(server.url, "--like", 5)
        before = len(server.requests)
        assert len(read("drafts.jsonl")) == 5 and before == 10
        draft(server.url, "--like", 5)
        assert len(server.requests) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a?", "a?"), ('"a \\"b\\""', 'a "b"'), ("x <input>\na\n</input> y", "a"), ('"', '"')],
)
def test_a_new_request_is_read_without_what_is_around_it(text: str, expected: str) -> None:
    assert read_input(text) == expected


def test_likeness_is_to_the_letter_or_near() -> None:
    known = ["where is the parcel that i ordered three weeks ago"]
    near = "where is the parcel that i ordered three weeks back"
    other = "my card was charged twice and nobody answers the phone"
    assert find_known(known, [other, near, known[0], other]) == {1: NEAR, 2: EXACT, 3: EXACT}
    assert find_known([], []) == {}


# --- stopped and gone on with -----------------------------------------------------------------------


def test_limits_are_waited_for_and_a_dead_endpoint_loses_nothing(draft: Any) -> None:
    write(Path("ask.jsonl"), [{"prompt": text} for text in NEW])
    dead = True

    def behave(body: dict[str, Any], n: int) -> Sent:
        if dead and any(text in json.dumps(body) for text in NEW[2:]):
            return Sent(429, json.dumps({"error": {"message": "slow down"}}), {"retry-after": "0.01"})
        return told("billing")

    with serving(behave) as server:
        stopped = draft(server.url, "--prompts", "ask.jsonl")
        assert stopped.exit_code == 1
        assert "big-1 at" in stopped.stderr and "slow down" in stopped.stderr and "goes on" in stopped.stderr
        assert len(read("drafts.jsonl")) == 2
        dead = False
        before = len(server.requests)
        assert draft(server.url, "--prompts", "ask.jsonl").exit_code == 0
        assert len(server.requests) - before == 4
    assert [row["messages"][1]["content"] for row in read("drafts.jsonl")] == list(NEW)  # in their order


def test_a_killed_drafting_goes_on(draft: Any, tmp_path: Path) -> None:
    write(Path("ask.jsonl"), [{"prompt": f"{text} {n}"} for n in range(4) for text in NEW])
    slow = True
    with serving(
        lambda body, n: Sent(body=told("billing").body, wait=0.2 if slow and n > 3 else 0)
    ) as server:
        arguments = [
            "--from",
            "mine.jsonl",
            "--prompts",
            "ask.jsonl",
            "--endpoint",
            server.url,
            "--model",
            "big-1",
        ]
        command = [*LUTHIER, "collect", "drafts", *arguments, "--out", "drafts.jsonl"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = tmp_path / "drafts.journal.jsonl"
        until = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not Path("drafts.jsonl").exists()
        kept = {row["key"] for row in read(journal) if "key" in row}
        slow, before = False, len(server.requests)
        result = draft(server.url, "--prompts", "ask.jsonl")
        assert result.exit_code == 0, result.output
        wanted = len(read("drafts.jsonl"))
        assert len(server.requests) - before == wanted - len(kept)
    assert len({row["messages"][1]["content"] for row in read("drafts.jsonl")}) == wanted


def test_other_options_do_not_mix_with_what_is_kept(draft: Any) -> None:
    write(Path("ask.jsonl"), [{"prompt": NEW[0]}])
    with serving(lambda body, n: told("billing")) as server:
        draft(server.url, "--prompts", "ask.jsonl")
        other = draft(server.url, "--prompts", "ask.jsonl", model="small")
        assert other.exit_code == 2 and "was begun with another model" in other.stderr
        assert draft(server.url, "--prompts", "ask.jsonl", "--force", model="small").exit_code == 0
    assert read("drafts.jsonl")[0]["provenance"]["model"] == "small"


def test_what_cannot_be_asked_is_said_first(draft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("ask.jsonl"), [{"prompt": NEW[0]}])
    monkeypatch.delenv("NO_KEY", raising=False)
    url = "http://127.0.0.1:9/v1"
    for arguments, said in (
        ((), "in one way"),
        (("--like", 2, "--prompts", "ask.jsonl"), "in one way"),
        (
            ("--prompts", "ask.jsonl", "--key-env", "NO_KEY"),
            "variable NO_KEY, which --key-env names, is not set",
        ),
    ):
        result = draft(url, *arguments)
        assert result.exit_code == 2 and said in result.stderr, result.output
    assert "--endpoint: expected an address" in draft("nowhere", "--like", 1).stderr
    write(Path("ask.jsonl"), [{"colour": "red"}])
    assert "no prompt (found colour)" in draft(url, "--prompts", "ask.jsonl", "--force").stderr
    Path("drafts.journal.jsonl").unlink()
    Path("drafts.jsonl").write_text("mine\n")
    assert "is there already" in draft(url, "--like", 1).stderr
    assert Path("drafts.jsonl").read_text() == "mine\n"


def test_texts_cannot_be_shown(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a story"}\n')
    with pytest.raises(DataError, match="none of the examples is a request"):
        Teacher.of(read_examples(tmp_path / "t.jsonl").examples, 4, 0, None)


def test_the_example_of_the_help_works(draft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(CliRunner().invoke(app, ["collect", "drafts", "--help"]).stdout.split())
    match = re.search(r"Example: luthier (collect drafts .*? --out drafts\.jsonl)", text)
    assert match is not None
    Path("mine.jsonl").rename("examples.jsonl")
    ideas = iter(NEW)
    with serving(lambda body, n: told(next(ideas) if is_asked_for_input(body) else "billing")) as server:
        typed = (
            match[1].replace("http://127.0.0.1:8000/v1", server.url).replace("--like 50", "--like 2").split()
        )
        assert CliRunner().invoke(app, typed).exit_code == 0
    assert len(read("drafts.jsonl")) == 2
