"""`Example`: one immutable conversation whose last assistant message is the answer to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.examples.tool_calls import ToolCall, read_answer, write_answer


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        weight: 0 keeps an assistant turn as context without training on it (OpenAI's key).
        tool_calls: what the assistant calls, beside or instead of saying something.
        name: of the tool whose result this is, or of who speaks.
        tool_call_id: which call a result answers; empty where the file does not tell.
    """

    role: str
    content: str
    weight: int = 1
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    tool_call_id: str = ""

    @property
    def text(self) -> str:
        """What the turn says: its content, and what it calls as JSON (see `tool_calls`)."""
        return write_answer(self.content, self.tool_calls) if self.tool_calls else self.content

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates expect it."""
        return self._written([call.as_dict() for call in self.tool_calls])

    def as_row(self) -> dict[str, Any]:
        """The message as OpenAI's files have it."""
        return self._written([call.as_row() for call in self.tool_calls]) | (
            {"weight": 0} if self.weight == 0 else {}
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Message:
        """The inverse of `as_row`, and of `as_dict` but for the weight."""
        calls = tuple(ToolCall.from_row(call) for call in row.get("tool_calls", ()))
        own = row.get("name", ""), row.get("tool_call_id", "")
        return cls(row["role"], row["content"], row.get("weight", 1), calls, *own)

    def _written(self, calls: list[dict[str, Any]]) -> dict[str, Any]:
        told: dict[str, Any] = {"role": self.role, "content": self.content}
        more = {"tool_calls": calls, "name": self.name, "tool_call_id": self.tool_call_id}
        return told | {key: value for key, value in more.items() if value}


@dataclass(frozen=True)
class Example:
    """A conversation that ends with the assistant's answer, or a text that nobody asked for.

    Attributes:
        id: stable over runs and files: derived from the content, unique within a data set.
        messages: the turns in order; the last one is the assistant's. A text is one such message alone.
        file, line: where it was read, shown in findings.
        group: examples of one group never part ways in a split (None: its own group).
        fields: every other column of the row, for slices and provenance.
        rejected: worse answers to the same request, the best of them first.
        wanted: False where the answer is one that should not be given; such an example is only learnt from.
        tools: JSON schemas of the tools on offer, as OpenAI's `tools`.
        provenance: where it comes from: `source`, `licence`, `date`, `synthetic`, and what else was told.
    """

    id: str
    messages: tuple[Message, ...]
    file: str
    line: int
    group: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rejected: tuple[str, ...] = ()
    wanted: bool = True
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def where(self) -> str:
        """`file:line`, as errors and findings show it."""
        return f"{self.file}:{self.line}"

    @property
    def answer(self) -> str:
        """The last assistant message: the reference that graders compare with.

        An answer that calls tools is its text, if any, and under it the calls as JSON (`Message.text`).
        """
        return self.messages[-1].text

    @property
    def request(self) -> tuple[Message, ...]:
        """Everything before the answer."""
        return self.messages[:-1]

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The request as `chat.ChatFormat` takes it; the first message carries the tools on offer, if any."""
        return self.with_tools(self.request)

    def with_tools(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """`messages`, which begin as the example does, for a chat format: the tools ride on the first.

        They ride along even where none is named, when the example calls tools: answers are then read
        as calls.
        """
        said = [message.as_dict() for message in messages]
        if said and (self.tools or any(message.tool_calls for message in self.messages)):
            said[0]["tools"] = [dict(tool) for tool in self.tools]
        return said

    def answered(self, text: str) -> Message:
        """A message that answers the request with `text`, whose calls count where the example has tools."""
        uses = bool(self.tools) or any(message.tool_calls for message in self.messages)
        content, calls = read_answer(text) if uses else (text, ())
        return Message("assistant", content, tool_calls=calls)

    @property
    def input(self) -> str:
        """The last user message: what retrieval, duplicates and the scratch model look at; else the text.

        What tools returned since then belongs to it, a line each: without it, two steps of one
        conversation would have the same input and different answers.
        """
        if not self.request:
            return self.answer
        last = max((i for i, m in enumerate(self.request) if m.role == "user"), default=None)
        if last is None:
            return ""
        results = [m.content for m in self.request[last:] if m.role == "tool"]
        return "\n".join([self.request[last].content, *results])

    @property
    def texts(self) -> list[str]:
        """All that is written in it: every turn, and the worse answers."""
        return [*[message.text for message in self.messages], *self.rejected]  # a list: half the time

    def as_row(self) -> dict[str, Any]:
        """The example as a line of the run folder's `data/*.jsonl`."""
        said = [message.as_row() for message in self.messages]
        row: dict[str, Any] = {
            "id": self.id,
            **({"messages": said} if self.request else {"text": self.answer}),
            "file": self.file,
            "line": self.line,
        }
        if self.group is not None:
            row["group"] = self.group
        if self.fields:
            row["fields"] = dict(self.fields)
        if self.rejected:
            row["rejected"] = list(self.rejected)
        if not self.wanted:
            row["wanted"] = False
        if self.tools:
            row["tools"] = [dict(tool) for tool in self.tools]
        if self.provenance:
            row["provenance"] = dict(self.provenance)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        """The inverse of `as_row`."""
        said = row.get("messages") or [{"role": "assistant", "content": row["text"]}]
        return cls(
            id=row["id"],
            messages=tuple(Message.from_row(message) for message in said),
            file=row["file"],
            line=row["line"],
            group=row.get("group"),
            fields=row.get("fields", {}),
            rejected=tuple(row.get("rejected", ())),
            wanted=row.get("wanted", True),
            tools=tuple(row.get("tools", ())),
            provenance=row.get("provenance", {}),
        )
