"""`luthier rank` where answers call tools: what is on offer and what was called reach the preference rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.examples import read_examples
from luthier.examples.example import Message
from luthier.examples.tool_calls import ToolCall
from luthier.pipeline.sampling import prompt_requests
from luthier.ranking.kept import Settings, keep_question, keep_settings, read_kept
from luthier.ranking.questions import Offered, Question, read_prompts

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = ToolCall("weather", '{"city": "Cork"}', "c1")
ASKED = (
    Message("user", "Rain in Cork?"),
    Message("assistant", "", weight=0, tool_calls=(CALL,)),
    Message("tool", "4 mm", name="weather", tool_call_id="c1"),
)
GOOD, POOR = "Yes, 4 mm.", '[{"name": "weather", "arguments": {"city": "Cork"}}]'


def row(**more: Any) -> dict[str, Any]:
    return {"prompt": [m.as_row() for m in ASKED], "tools": [TOOL], "answers": [POOR, GOOD]} | more


def test_what_is_judged_keeps_its_tools_and_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 100)
    Path("asked.jsonl").write_text(json.dumps(row()) + "\n")
    shown = CliRunner().invoke(app, ["rank", "asked.jsonl", "--rater", "anna"], input="1 2\n").stdout
    for text in ("tools", "weather", '"city": "Cork"', "4 mm"):
        assert text in shown
    (example,) = read_examples("judgements.preferences.jsonl").examples
    assert example.tools == (TOOL,)
    assert example.request[1].tool_calls == (CALL,) and example.request[2].tool_call_id == "c1"
    (said,) = map(json.loads, Path("judgements.jsonl").read_text().splitlines())
    assert [Offered(text).id for text in (example.answer, *example.rejected)] == said["shown"]
    assert {example.answer, *example.rejected} == {GOOD, POOR}
    assert example.asked[0]["tools"] == [TOOL]


def test_sampled_answers_keep_them_too(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    asked = Question(ASKED, (Offered(GOOD), Offered(POOR)), "f.jsonl:1", tools=(TOOL,))
    keep_settings(path, Settings(), {})
    keep_question(path, "r", asked)
    kept = read_kept(path).questions["r"]
    assert (kept.tools, kept.key) == ((TOOL,), asked.key)
    assert kept.messages[1].tool_calls == (CALL,) and kept.messages[2].name == "weather"


def test_a_prompt_without_answers_is_asked_with_its_tools(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text(json.dumps(row(answers=None)) + "\n")
    (request,) = prompt_requests(read_prompts(path))
    assert request.asked[0]["tools"] == [TOOL] and request.request[1].tool_calls == (CALL,)


def test_other_tools_make_another_question() -> None:
    plain = Question((Message("user", "Hi"),), (Offered("a"), Offered("b")), "f:1")
    with_tools = Question(plain.messages, plain.answers, plain.where, tools=(TOOL,))
    assert plain.key != with_tools.key
    assert plain.key == "d0adcceedcb05860", "judgements that people have made name it so"
