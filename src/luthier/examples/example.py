"""`Example`: one immutable conversation whose last assistant message is the answer to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """One turn. `weight` 0 keeps an assistant turn as context without training on it (OpenAI's key)."""

    role: str
    content: str
    weight: int = 1

    def as_dict(self) -> dict[str, str]:
        """The message as chat templates expect it."""
        return {"role": self.role, "content": self.content}


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
    """

    id: str
    messages: tuple[Message, ...]
    file: str
    line: int
    group: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rejected: tuple[str, ...] = ()
    wanted: bool = True

    @property
    def where(self) -> str:
        """`file:line`, as errors and findings show it."""
        return f"{self.file}:{self.line}"

    @property
    def answer(self) -> str:
        """The last assistant message: the reference that graders compare with."""
        return self.messages[-1].content

    @property
    def request(self) -> tuple[Message, ...]:
        """Everything before the answer."""
        return self.messages[:-1]

    @property
    def input(self) -> str:
        """The last user message: what retrieval, duplicates and the scratch model look at; else the text."""
        if not self.request:
            return self.answer
        return next((m.content for m in reversed(self.request) if m.role == "user"), "")

    @property
    def texts(self) -> list[str]:
        """All that is written in it: every turn, and the worse answers."""
        return [*(message.content for message in self.messages), *self.rejected]

    def as_row(self) -> dict[str, Any]:
        """The example as a line of the run folder's `data/*.jsonl`."""
        said = [m.as_dict() | ({"weight": 0} if m.weight == 0 else {}) for m in self.messages]
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
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        """The inverse of `as_row`."""
        said = row.get("messages") or [{"role": "assistant", "content": row["text"]}]
        return cls(
            id=row["id"],
            messages=tuple(Message(m["role"], m["content"], m.get("weight", 1)) for m in said),
            file=row["file"],
            line=row["line"],
            group=row.get("group"),
            fields=row.get("fields", {}),
            rejected=tuple(row.get("rejected", ())),
            wanted=row.get("wanted", True),
        )
