"""Logs in the words of other APIs than OpenAI's: Gemini's, Bedrock's, Cohere's and Ollama's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.collect.logs import LogOptions, collect_logs

ASKED = [{"role": "user", "content": "Where?"}]
TURNS = [*ASKED, {"role": "assistant", "content": "Here."}]
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Where?"}]}]}


def candidate(*parts: Any, finish: str = "STOP") -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}]}


def collected(folder: Path, *records: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    path, out = folder / "log.jsonl", folder / "out.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    tally = collect_logs([path], out, LogOptions(), force=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if tally.taken else []
    return rows, dict(tally.left_out)


CLAUDE = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Here."}]}
LOGGED: dict[str, dict[str, Any]] = {
    "gemini": {"request": GEMINI, "response": candidate({"text": "Here."})},
    "gemini as text": {
        "request_body": json.dumps(GEMINI),
        "response_body": json.dumps(candidate({"text": "Here."})),
    },
    "gemini thought": {
        "request": GEMINI,
        "response": candidate({"text": "Hm.", "thought": True}, {"text": "Here."}),
    },
    "bedrock": {
        "schemaType": "ModelInvocationLog",
        "input": {"inputContentType": "application/json", "inputBodyJson": {"messages": ASKED}},
        "output": {"outputBodyJson": CLAUDE | {"stop_reason": "end_turn"}},
    },
    "cohere": {
        "request": {"message": "Where?", "chat_history": []},
        "response": {"text": "Here.", "finish_reason": "COMPLETE"},
    },
    "ollama": {
        "request": {"model": "m", "prompt": "Where?"},
        "response": {"model": "m", "response": "Here.", "done": True, "done_reason": "stop"},
    },
}


@pytest.mark.parametrize("name", LOGGED)
def test_what_was_said_is_taken_and_not_its_wrapping(name: str, tmp_path: Path) -> None:
    rows, left = collected(tmp_path, LOGGED[name])
    assert [row["messages"] for row in rows] == [TURNS]
    assert left == {}


def test_instructions_earlier_turns_and_calls_are_kept(tmp_path: Path) -> None:
    call = {"functionCall": {"name": "find", "args": {"what": "key"}}}
    tools = [{"functionDeclarations": [{"name": "find", "parameters": {"type": "OBJECT"}}]}]
    asked = {**GEMINI, "systemInstruction": {"parts": [{"text": "Be brief."}]}, "tools": tools}
    history = [{"role": "USER", "message": "Hi"}, {"role": "CHATBOT", "message": "Hello"}]
    rows, _ = collected(
        tmp_path,
        {"request": asked, "response": candidate(call)},
        {
            "request": {"message": "Where?", "chat_history": history, "preamble": "P"},
            "response": {"text": "Here."},
        },
    )
    gemini, cohere = (row["messages"] for row in rows)
    assert gemini[0] == {"role": "system", "content": "Be brief."}
    (made,) = gemini[-1]["tool_calls"]
    assert (made["function"]["name"], json.loads(made["function"]["arguments"])) == ("find", {"what": "key"})
    assert rows[0]["tools"][0]["function"] == {"name": "find", "parameters": {"type": "object"}}
    assert [(m["role"], m["content"]) for m in cohere] == [
        ("system", "P"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Where?"), ("assistant", "Here."),
    ]  # fmt: skip


def test_answers_that_are_none_to_learn_are_left_out(tmp_path: Path) -> None:
    picture = {"contents": [{"role": "user", "parts": [{"inlineData": {"data": "x"}}]}]}
    ollama = {"response": "Here", "done": True, "done_reason": "length"}
    rows, left = collected(
        tmp_path,
        {"request": GEMINI, "response": candidate({"text": "Here"}, finish="MAX_TOKENS")},
        {"request": GEMINI, "response": {"candidates": [{"finishReason": "SAFETY"}]}},
        {"request": picture, "response": candidate({"text": "Here."})},
        {"request": {"model": "m", "prompt": "Where?"}, "response": ollama},
    )
    assert rows == []
    assert left == {
        "cut off at the limit of tokens": 2,
        "stopped by a content filter": 1,
        "holds an image, a sound or a file": 1,
    }


def test_an_answer_of_the_applications_own_stays_json(tmp_path: Path) -> None:
    answer = {"candidates": ["Ann", "Ben"], "done": "yes"}
    rows, _ = collected(tmp_path, {"input": "Who may it be?", "output": answer})
    assert json.loads(rows[0]["messages"][1]["content"]) == answer
