"""An example as a row of any form that examples come in: the inverse of reading.

Every row is read back before it counts: what a form cannot hold is refused with the example's place, never
left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Example, Message
from luthier.examples.formats import Conversation, convert_row, recognise_format
from luthier.examples.tool_calls import ToolCall, link

Row = dict[str, Any]
HOLDS_ALL = "`--to luthier` holds everything"
_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


@dataclass(frozen=True)
class Written:
    """A form that can be written.

    Attributes:
        reads: names of the forms as which its rows are read.
        write: an example, and whether prompts and answers are plain texts, to the form's own columns.
        rejected: how many worse answers a row has; None for any number.
        judged: whether it can say that an answer should not be given.
        texts: whether it can be plain: prompts and answers as texts, where every example allows it.
    """

    reads: tuple[str, ...]
    write: Callable[[Example, bool], Row]
    rejected: int | None = 0
    judged: bool = False
    texts: bool = False


def write_row(example: Example, to: str, *, plain: bool = False) -> Row:
    """The example as a row of form `to` (a key of `WRITTEN`), its other columns beside.

    Args:
        plain: write prompts and answers as texts; see `can_be_plain`.

    Raises:
        DataError: the form cannot hold the example; names its place.
    """
    form = WRITTEN[to]
    try:
        _refuse_judgements(example, to, form)
        own = form.write(example, plain)
        row = own if to == "luthier" else _with_other_columns(example, own, to)
        found = recognise_format([row], where=example.where)
        if found.name not in form.reads:
            columns = ", ".join(name for name in row if name not in own)
            raise DataError(f"with the columns {columns} it would be read as {found.name}", fix=HOLDS_ALL)
        if lost := _difference(example, convert_row(found, row)):
            raise DataError(f"{to} cannot hold {lost}", fix=HOLDS_ALL)
    except DataError as error:
        raise DataError(error.message, where=example.where, fix=error.fix) from None
    return row


def can_be_plain(example: Example, to: str) -> bool:
    """Whether prompt and answers are texts that form `to` can hold as such."""
    speakers = [(message.role, message.name, message.tool_calls) for message in example.messages]
    if not WRITTEN[to].texts or speakers != [("user", "", ()), ("assistant", "", ())]:
        return False
    try:
        write_row(example, to, plain=True)
    except DataError:
        return False
    return True


def _refuse_judgements(example: Example, to: str, form: Written) -> None:
    count = len(example.rejected)
    if form.rejected is not None and count != form.rejected:
        held = {0: "no worse answers", 1: "one worse answer"}[form.rejected]
        fix = HOLDS_ALL if count else "choose a form without worse answers, such as `--to openai`"
        raise DataError(f"has {count or 'no'} worse answers, and {to} holds {held}", fix=fix)
    if not example.wanted and not form.judged:
        raise DataError(
            f"its answer should not be given, which {to} cannot say", fix="use `--to unpaired`, or luthier"
        )
    if not example.request and to not in ("text", "luthier"):
        raise DataError(
            f"is a text that nobody asked for, and {to} holds conversations", fix="use `--to text`"
        )


def _with_other_columns(example: Example, own: Row, to: str) -> Row:
    """The form's own columns, then those of tools, group, provenance and the user's."""
    row = dict(own)
    if example.tools and to not in ("openai-preference", "text"):
        tools = [dict(tool) for tool in example.tools]
        row["tools"] = json.dumps(tools, ensure_ascii=False) if to in ("sharegpt", "alpaca") else tools
    if example.group is not None:
        row["group"] = example.group
    if example.provenance:
        row["provenance"] = dict(example.provenance)
    taken = {name.lower() for name in row}
    for name, value in example.fields.items():
        if to == "openai-preference" and name == "parallel_tool_calls":
            continue
        if name.lower() in taken:
            raise DataError(
                f"its column {name!r} has the name of a column of {to}", fix=f"rename it, or {HOLDS_ALL}"
            )
        row[name] = value
    return row


def _difference(example: Example, said: Conversation) -> str | None:
    """What of an example is not in what its row says."""
    if _linked(example.messages) != _linked(said.messages):
        return "its messages as they are"
    pairs = {
        "its worse answers": (example.rejected, said.rejected),
        "whether its answer should be given": (example.wanted, said.wanted),
        "its tools": (list(example.tools), list(said.tools)),
        "its group": (example.group, said.group),
        "its other columns": (dict(example.fields), said.fields),
        "where it comes from": (dict(example.provenance), dict(said.provenance)),
    }
    return next((what for what, (ours, theirs) in pairs.items() if ours != theirs), None)


def _linked(messages: tuple[Message, ...]) -> list[Row]:
    return link([message.as_row() for message in messages])


def _openai_messages(example: Example) -> list[Row]:
    """Messages as OpenAI wants them: every call with an id, no text where there is none."""
    rows = _linked(example.messages)
    return [row | ({"content": None} if row.get("tool_calls") and not row["content"] else {}) for row in rows]


def _openai(example: Example, plain: bool) -> Row:
    return {"messages": _openai_messages(example)}


def _openai_preference(example: Example, plain: bool) -> Row:
    *request, answer = _openai_messages(example)
    worse = link([example.answered(example.rejected[0]).as_row()])
    asked: Row = {"messages": request}
    if example.tools:
        asked["tools"] = [dict(tool) for tool in example.tools]
    if "parallel_tool_calls" in example.fields:
        asked["parallel_tool_calls"] = example.fields["parallel_tool_calls"]
    return {"input": asked, "preferred_output": [answer], "non_preferred_output": worse}


def _sharegpt(example: Example, plain: bool) -> Row:
    return {"conversations": [turn for message in example.messages for turn in _sharegpt_turns(message)]}


def _sharegpt_turns(message: Message) -> list[Row]:
    beside: Row = {"name": message.name, "tool_call_id": message.tool_call_id}
    beside = {key: value for key, value in beside.items() if value}
    if message.weight == 0:
        beside["weight"] = 0
    turns = []
    if message.content or not message.tool_calls:
        turns.append({"from": _SPEAKERS[message.role], "value": message.content, **beside})
    if message.tool_calls:
        calls = [_flat(call) for call in message.tool_calls]
        value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
        turns.append({"from": "function_call", "value": value, **beside})
    return turns


def _flat(call: ToolCall) -> Row:
    told: Row = {"name": call.name, "arguments": json.loads(call.arguments)}
    return told | ({"id": call.id} if call.id else {})


def _alpaca(example: Example, plain: bool) -> Row:
    messages = list(example.messages)
    system = messages.pop(0).content if messages[0].role == "system" else ""
    if [m.role for m in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise DataError("has turns that are neither the user's nor the answer to them", fix=HOLDS_ALL)
    if any(m.tool_calls for m in messages):
        raise DataError("calls tools, and alpaca holds texts", fix="use `--to openai` or `--to sharegpt`")
    pairs = [[a.content, b.content] for a, b in zip(messages[::2], messages[1::2], strict=True)]
    asked, answer = pairs.pop()
    row: Row = {"instruction": asked, "input": "", "output": answer}
    row |= {"history": pairs} if pairs else {}
    return row | ({"system": system} if system else {})


def _completion(example: Example, plain: bool) -> Row:
    if plain:
        return {"prompt": example.messages[0].content, "completion": example.messages[1].content}
    *request, answer = _linked(example.messages)
    return {"prompt": request, "completion": [answer]}


def _unpaired(example: Example, plain: bool) -> Row:
    return _completion(example, plain) | {"label": example.wanted}


def _trl_preference(example: Example, plain: bool) -> Row:
    if plain:
        return {
            "prompt": example.messages[0].content,
            "chosen": example.messages[1].content,
            "rejected": example.rejected[0],
        }
    *request, answer = _linked(example.messages)
    worse = link([example.answered(example.rejected[0]).as_row()])
    return {"prompt": request, "chosen": [answer], "rejected": worse}


def _text(example: Example, plain: bool) -> Row:
    if example.request:
        raise DataError("is a conversation, and text holds plain texts", fix="use `--to openai`")
    return {"text": example.messages[0].content}


WRITTEN: Mapping[str, Written] = {
    "openai": Written(("messages",), _openai),
    "sharegpt": Written(("sharegpt",), _sharegpt),
    "alpaca": Written(("alpaca",), _alpaca),
    "prompt-completion": Written(("prompt/completion",), _completion, texts=True),
    "trl-preference": Written(("chosen/rejected",), _trl_preference, rejected=1, texts=True),
    "openai-preference": Written(("openai preference",), _openai_preference, rejected=1),
    "unpaired": Written(("prompt/completion/label",), _unpaired, judged=True, texts=True),
    "text": Written(("text",), _text),
    "luthier": Written(
        ("luthier", "luthier-texts"), lambda example, plain: example.as_row(), rejected=None, judged=True
    ),
}
