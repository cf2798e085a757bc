"""The forms that examples come in. Each is a name, the columns it needs, and one small converter.

`FORMATS` is tried in order, the most specific first. A converter takes a row and returns messages;
it raises `DataError` without a place, which the reader adds. Texts are kept to the letter: a space
at the end of an answer is a finding of the audit, not something to repair in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.preferences import (
    from_choice,
    is_judged,
    own_wanted,
    own_worse,
    wanted_by_label,
    worse_answers,
)
from luthier.examples.turns import read_chat, read_message, read_text

Values = Mapping[str, Any]
PASSAGES = ("passage", "context", "contract", "document")  # columns that a question is about
_SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "bot": "assistant", "system": "system",
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """One form of examples.

    Attributes:
        name: shown to the user ("read as alpaca").
        needs: columns a row must have.
        takes: further columns the converter reads; all others become `Example.fields`.
        convert: row to messages; the chosen answer is the last one.
        when: what a row's values must be like, where its columns do not tell.
        wanted: whether the answer of a row is one to give.
        worse: row and messages to the worse answers to the same request, the best of them first.
        asks: whether a row is a conversation; otherwise it is a text that nobody asked for.
    """

    name: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    convert: Callable[[Values], list[Message]]
    when: Callable[[Values], bool] = lambda row: True
    wanted: Callable[[Values], bool] = lambda row: True
    worse: Callable[[Values, Sequence[Message]], tuple[str, ...]] = lambda row, messages: ()
    asks: bool = True

    def count(self, rows: Sequence[Values]) -> int:
        """How many rows, with columns in lower case, have this form; most must be as `when` says."""
        fitting = [row for row in rows if row.keys() >= set(self.needs)]
        return len(fitting) if 2 * sum(map(self.when, fitting)) > len(fitting) else 0


class Conversation(NamedTuple):
    """What a row says: see the attributes of `Example`."""

    messages: tuple[Message, ...]
    group: str | None
    fields: dict[str, Any]
    rejected: tuple[str, ...] = ()
    wanted: bool = True


def recognise_format(rows: Sequence[Values], *, where: str) -> Format:
    """The form that most of the first rows have; the earlier one in `FORMATS` when two fit as well.

    Texts are what is left where no row holds a request and its answer.

    Raises:
        DataError: none fits any row; names the columns that were found.
    """
    lowered = [{key.lower(): value for key, value in row.items()} for row in rows]
    for asks in (True, False):
        forms = [form for form in FORMATS if form.asks is asks]
        counts = [form.count(lowered) for form in forms]
        if best := max(counts):
            return forms[counts.index(best)]
    found = ", ".join(dict.fromkeys(column for row in rows for column in row)) or "none"
    accepted = "; ".join(f"{' + '.join(form.needs)}" for form in FORMATS)
    raise DataError(
        f"columns not recognised: {found}", where=where, fix=f"name the columns like one of: {accepted}"
    )


def convert_row(form: Format, row: Values) -> Conversation:
    """Messages, group, remaining fields and judgements of a row.

    A `system` column goes before the messages unless they have a system prompt, a `group` column
    becomes the group.

    Raises:
        DataError: columns are missing, or the row is not a conversation that ends with an answer.
    """
    known = {*form.needs, *form.takes, "group", *(("system",) if form.asks else ())}
    row = {key.lower() if key.lower() in known else key: value for key, value in row.items()}
    missing = [column for column in form.needs if column not in row]
    if missing:
        raise DataError(
            f"no column {', '.join(missing)} (found {', '.join(row) or 'none'}), read as {form.name}",
            fix=f"give every row {' and '.join(form.needs)}, or put other rows into a file of their own",
        )
    messages = form.convert(row)
    if form.asks and row.get("system") and messages[:1] and messages[0].role != "system":
        messages.insert(0, Message("system", read_text(row["system"], "system")))
    check_conversation(messages, asks=form.asks)
    group = row.get("group")
    fields = {key: value for key, value in row.items() if key not in known}
    return Conversation(
        tuple(messages),
        None if group in (None, "") else read_text(group, "group"),
        fields,
        form.worse(row, messages),
        form.wanted(row),
    )


def check_conversation(messages: Sequence[Message], *, asks: bool = True) -> None:
    """Refuse what cannot be learnt from.

    Args:
        asks: whether there has to be a request.

    Raises:
        DataError: no turn of the user, no answer at the end, an empty or an untrained answer.
    """
    if not messages:
        raise DataError("there are no messages", fix="write a user message and the assistant's answer")
    if messages[-1].role != "assistant":
        raise DataError(
            f"the last message is from {messages[-1].role!r}, expected the assistant's answer",
            fix="end every example with the answer to learn",
        )
    if not messages[-1].content.strip():
        what = "answer" if asks else "text"
        raise DataError(f"the {what} is empty", fix=f"write the {what}, or leave the example out")
    if asks and not any(m.role == "user" and m.content.strip() for m in messages[:-1]):
        raise DataError("there is nothing from the user before the answer", fix="write what the user asks")
    if messages[-1].weight == 0:
        raise DataError("the answer has weight 0, so nothing would be learnt", fix="set its weight to 1")


def _from_messages(row: Values) -> list[Message]:
    return read_chat(row["messages"], "messages")


def _from_sharegpt(row: Values) -> list[Message]:
    turns = row["conversations"]
    if not isinstance(turns, list):
        raise DataError("conversations is not a list", fix='write [{"from": "human", "value": …}, …]')
    messages = []
    for number, turn in enumerate(turns):
        name = f"conversations[{number}]"
        if isinstance(turn, dict) and "role" in turn:
            messages.append(read_message(turn, name))
            continue
        if not isinstance(turn, dict) or not {"from", "value"} <= turn.keys():
            raise DataError(f"{name} is not a turn", fix='write {"from": "human", "value": …}')
        role = _SHAREGPT_ROLES.get(str(turn["from"]))
        if role is None:
            raise DataError(
                f"{name} is from {turn['from']!r}", fix=f"use one of {', '.join(_SHAREGPT_ROLES)}"
            )
        messages.append(Message(role, read_text(turn["value"], name)))
    return messages


def _from_completion(row: Values) -> list[Message]:
    prompt, completion = row["prompt"], row["completion"]
    asked = (
        read_chat(prompt, "prompt")
        if isinstance(prompt, list)
        else [Message("user", read_text(prompt, "prompt"))]
    )
    chat = isinstance(completion, list) or (isinstance(completion, dict) and "role" in completion)
    answered = (
        read_chat(completion, "completion")
        if chat
        else [Message("assistant", read_text(completion, "completion"))]
    )
    return asked + answered


def _from_alpaca(row: Values) -> list[Message]:
    messages = []
    for number, pair in enumerate(row.get("history") or []):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"history[{number}] is not a pair", fix="write [[question, answer], …]")
        messages += [
            Message("user", read_text(pair[0], "history")),
            Message("assistant", read_text(pair[1], "history")),
        ]
    asked = read_text(row["instruction"], "instruction")
    if row.get("input") not in (None, ""):
        asked = f"{asked}\n\n{read_text(row['input'], 'input')}"
    return [*messages, Message("user", asked), Message("assistant", read_text(row["output"], "output"))]


def _from_question(row: Values) -> list[Message]:
    """Passage or context, then the question, then the options, with a blank line between them.

    Lists of options get letters, and an answer that counts them from 0 becomes its letter.
    """
    answer = row["answer"]
    passages = [_passage(row[key]) for key in PASSAGES if row.get(key) not in (None, "")]
    parts = [*passages, read_text(row["question"], "question")]
    options = row.get("options") or row.get("choices")
    if isinstance(options, list):
        parts.append("\n".join(f"{chr(65 + i)}. {read_text(o, 'options')}" for i, o in enumerate(options)))
        if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < min(len(options), 26):
            answer = chr(65 + answer)
    elif isinstance(options, dict):
        named = options
        if {"text", "label"} <= options.keys() and all(isinstance(v, list) for v in options.values()):
            named = dict(zip(options["label"], options["text"], strict=False))
        parts.append("\n".join(f"{key}. {read_text(value, 'options')}" for key, value in named.items()))
    elif options:
        parts.append(read_text(options, "options"))
    return [Message("user", "\n\n".join(parts)), Message("assistant", read_text(answer, "answer"))]


def _passage(value: Any) -> str:
    if isinstance(value, list):
        return "\n\n".join(read_text(item, "context") for item in value)
    return read_text(value, "context")


def _pair(asked: str, answered: str) -> Callable[[Values], list[Message]]:
    def convert(row: Values) -> list[Message]:
        return [
            Message("user", read_text(row[asked], asked)),
            Message("assistant", read_text(row[answered], answered)),
        ]

    return convert


def _from_text(row: Values) -> list[Message]:
    return [Message("assistant", read_text(row["text"], "text"))]


FORMATS = (
    Format("chosen/rejected", ("chosen", "rejected"), ("prompt",), from_choice, worse=worse_answers),
    Format(
        "messages",
        ("messages",),
        ("rejected", "wanted"),
        _from_messages,
        wanted=own_wanted,
        worse=own_worse,
    ),
    Format("sharegpt", ("conversations",), (), _from_sharegpt),
    Format(
        "prompt/completion/label",
        ("prompt", "completion", "label"),
        (),
        _from_completion,
        when=is_judged,
        wanted=wanted_by_label,
    ),
    Format("prompt/completion", ("prompt", "completion"), (), _from_completion),
    Format("alpaca", ("instruction", "output"), ("input", "history"), _from_alpaca),
    Format(
        "question/answer",
        ("question", "answer"),
        (*PASSAGES, "options", "choices"),
        _from_question,
    ),
    Format("input/output", ("input", "output"), (), _pair("input", "output")),
    Format("text/label", ("text", "label"), (), _pair("text", "label")),
    Format("text", ("text",), (), _from_text, asks=False),
)
