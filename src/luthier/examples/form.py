"""`Format`: a form of examples, and how a row of it becomes a conversation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.tool_rows import Tools, are_tools, read_tools
from luthier.examples.turns import SYSTEM_IN, read_cell, read_content, read_text, system_of

Values = Mapping[str, Any]
EMPTY: tuple[Any, ...] = (None, "", [], {})


def offered_tools(row: Values) -> Tools:
    """The tools in the columns `tools` and `functions`."""
    if "tools" not in row and "functions" not in row:
        return ()
    return read_tools(row.get("tools"), "tools") + read_tools(row.get("functions"), "functions")


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
        tools: the tools on offer.
        keeps: fields that are in columns which the converter reads.
        asks: whether a row is a conversation; otherwise it is a text that nobody asked for.
    """

    name: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    convert: Callable[[Values], list[Message]]
    when: Callable[[Values], bool] = lambda row: True
    wanted: Callable[[Values], bool] = lambda row: True
    worse: Callable[[Values, Sequence[Message]], tuple[str, ...]] = lambda row, messages: ()
    tools: Callable[[Values], Tools] = offered_tools
    keeps: Callable[[Values], dict[str, Any]] = field(default=lambda row: {})
    asks: bool = True

    def count(self, rows: Sequence[Values]) -> int:
        """How many rows, with columns in lower case, have this form; most must be as `when` says."""
        fitting = [row for row in rows if row.keys() >= set(self.needs)]
        return len(fitting) if 2 * sum(map(self.when, fitting)) > len(fitting) else 0

    @functools.cached_property
    def columns(self) -> frozenset[str]:
        """The columns, in lower case, that never become fields."""
        always = ("group", "provenance", *(SYSTEM_IN if self.asks else ()))
        return frozenset((*self.needs, *self.takes, *always))

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """Columns that are read in lower case however they are written; `tools` only where it holds tools."""
        return self.columns | ({"tools"} if self.asks else set())

    @functools.cached_property
    def needed(self) -> frozenset[str]:
        """`needs` as a set."""
        return frozenset(self.needs)


class Conversation(NamedTuple):
    """What a row says: see the attributes of `Example`."""

    messages: tuple[Message, ...]
    group: str | None
    fields: dict[str, Any]
    rejected: tuple[str, ...]
    wanted: bool
    tools: Tools
    provenance: Mapping[str, Any]


def convert_row(form: Format, row: Values) -> Conversation:
    """Messages, group, remaining fields and judgements of a row.

    A `system` or `system_prompt` column goes before the messages unless they have a system prompt, a `group`
    column becomes the group, `tools` are the tools on offer where that is what they are, and `provenance`
    says where it is from.

    Raises:
        DataError: columns are missing, or the row is not a conversation that ends with an answer.
    """
    known = form.known
    if not row.keys() <= known:
        row = _lowered(row, known)
    if not form.needed <= row.keys():
        missing = [column for column in form.needs if column not in row]
        raise DataError(
            f"no column {', '.join(missing)} (found {', '.join(row) or 'none'}), read as {form.name}",
            fix=f"give every row {' and '.join(form.needs)}, or put other rows into a file of their own",
        )
    if "tools" not in form.columns and "tools" in row and not are_tools(row["tools"]):
        known = form.columns  # a column of the user's own, such as `hammer, saw`
    messages = form.convert(row)
    system = system_of(row) if form.asks else None
    if system and messages[:1] and messages[0].role != "system":
        messages.insert(0, Message("system", _system(system)))
    check_conversation(messages, asks=form.asks)
    group = row.get("group")
    return Conversation(
        tuple(messages),
        None if group in (None, "") else read_text(group, "group"),
        {**{key: value for key, value in row.items() if key not in known}, **form.keeps(row)},
        form.worse(row, messages),
        form.wanted(row),
        form.tools(row) if form.asks and "tools" in known else (),
        read_provenance(row.get("provenance")),
    )


def _lowered(row: Values, known: Set[str]) -> Values:
    """The row with known columns in lower case.

    Raises:
        DataError: two of them are then the same.
    """
    lowered = {key.lower() if key.lower() in known else key: value for key, value in row.items()}
    if len(lowered) < len(row):
        names = [key.lower() for key in row]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"column {twice!r} appears twice, in capital and small letters", fix="rename one of them"
        )
    return lowered


def _system(value: Any) -> str:
    return read_content(value, "system") if isinstance(value, list) else read_text(value, "system")


def read_provenance(value: Any) -> dict[str, Any]:
    """Where an example comes from: an object, its JSON text, or the words of the source alone.

    Raises:
        DataError: it is neither.
    """
    if value is None:
        return {}
    value = read_cell(value)
    if value in EMPTY:
        return {}
    if isinstance(value, str):
        return {"source": value}
    if not isinstance(value, dict):
        raise DataError(
            f"provenance is a {type(value).__name__}, expected an object",
            fix='write {"source": "…", "licence": "…"}',
        )
    return {("licence" if key == "license" else key): told for key, told in value.items()}


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
    if not messages[-1].text.strip():
        what = "answer" if asks else "text"
        raise DataError(f"the {what} is empty", fix=f"write the {what}, or leave the example out")
    if asks and not any([m.role == "user" and m.content.strip() for m in messages[:-1]]):  # noqa: C419 half the time
        raise DataError("there is nothing from the user before the answer", fix="write what the user asks")
    if messages[-1].weight == 0:
        raise DataError("the answer has weight 0, so nothing would be learnt", fix="set its weight to 1")
