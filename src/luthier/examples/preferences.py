"""Forms of preferences: a chosen and worse answers to one request, or one answer judged good or bad.

The names of columns, and prompts that are left implicit, are those of TRL's data sets. Every
request is followed by one turn of the assistant: where two conversations part earlier, the
answers are to different requests, and nothing can be learnt from the pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.tool_rows import Tools, read_tools
from luthier.examples.turns import read_cell, read_chat, read_text, read_turns_cell, system_of

Values = Mapping[str, Any]
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant): ?")  # of hh-rlhf, one text for a whole conversation
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_LABELS = {"true": True, "false": False, "1": True, "0": False}
ASKED_IN = ("prompt", "conversations", "instruction", "question", "query", "input")  # beside chosen, rejected


def from_choice(row: Values) -> list[Message]:
    """The request and the chosen answer."""
    chosen = _turns(row["chosen"], "chosen")
    if _prompt_is_text(row, chosen):
        common = _common_text(row)
        return [Message("user", common), Message("assistant", _after(common, row["chosen"]))]
    prompt = _prompt(row, chosen)
    return [*prompt, *chosen[_shared(prompt, chosen) :]]


def worse_answers(row: Values, messages: Sequence[Message]) -> tuple[str, ...]:
    """Of a row with `rejected`: an answer, a conversation, or a list of answers (the best of them first).

    Raises:
        DataError: there is none, one is empty or the chosen one, or is not an answer to the same request.
    """
    value = row["rejected"]
    many = isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    return check_worse([_worse(item, row, messages) for item in (value if many else [value])], messages)


def check_worse(answers: Sequence[str], messages: Sequence[Message]) -> tuple[str, ...]:
    """The worse answers to a conversation, unless one of them is empty, repeated or the chosen one.

    Raises:
        DataError: one of them is.
    """
    for answer in answers:
        if not answer.strip():
            raise DataError("the rejected answer is empty", fix="write it, or leave the example out")
        if answer == messages[-1].text:
            raise DataError(
                "chosen and rejected are the same answer", fix="leave the example out: it prefers nothing"
            )
    if len(set(answers)) < len(answers):
        raise DataError("the same answer is rejected twice", fix="list it once")
    return tuple(answers)


def from_preferred(row: Values) -> list[Message]:
    """The request and the preferred answer of OpenAI's `input`, `preferred_output`."""
    return [*read_chat(_input(row).get("messages"), "input.messages"), _output(row, "preferred_output")]


def not_preferred(row: Values, messages: Sequence[Message]) -> tuple[str, ...]:
    """The worse answer of OpenAI's form, `non_preferred_output`."""
    return check_worse([_output(row, "non_preferred_output").text], messages)


def tools_of_input(row: Values) -> Tools:
    """The tools on offer in OpenAI's `input`."""
    return read_tools(_input(row).get("tools"), "input.tools")


def rest_of_input(row: Values) -> dict[str, Any]:
    """What else OpenAI's `input` says, such as `parallel_tool_calls`."""
    return {key: value for key, value in _input(row).items() if key not in ("messages", "tools")}


def _input(row: Values) -> Mapping[str, Any]:
    value = read_cell(row["input"])
    if not isinstance(value, dict):
        raise DataError(f"input is {_kind(value)}, expected an object", fix='write {"messages": […]}')
    return value


def _output(row: Values, name: str) -> Message:
    turns = read_chat(row[name], name)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise DataError(f"{name} is not one message of the assistant", fix="write one answer in each output")
    return turns[0]


def own_worse(row: Values, messages: Sequence[Message]) -> tuple[str, ...]:
    """Of a row with `messages`, which may have `rejected` besides."""
    value = row.get("rejected")
    if value in (None, "", []):
        return ()
    if not isinstance(value, str) and not (
        isinstance(value, list) and all(isinstance(v, str) for v in value)
    ):
        raise DataError(
            f"rejected is {_kind(value)}, expected an answer or a list of answers",
            fix="write texts that answer the same request worse, or rename the column",
        )
    return check_worse([value] if isinstance(value, str) else value, messages)


def own_wanted(row: Values) -> bool:
    """Of a row with `messages`, which may have `wanted` besides."""
    value = row.get("wanted", True)
    if value is None or value == "":  # of a table in which other rows have it
        return True
    if isinstance(value, str):
        value = _LABELS.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise DataError(
            f"wanted is {_kind(value)}, expected true or false",
            fix="write false where the answer should not be given, or rename the column",
        )
    return value


def is_judged(row: Values) -> bool:
    """Whether `label` says good or bad, as true and false or 1 and 0 do; a class such as `spam` does not."""
    return _judgement(row["label"]) is not None


def is_true_or_false(row: Values) -> bool:
    """As `is_judged`, where 0 and 1 may as well be classes."""
    return is_judged(row) and str(row["label"]).strip() not in ("0", "1")


def _judgement(label: Any) -> bool | None:
    if isinstance(label, str):
        return _LABELS.get(label.strip().lower())
    return bool(label) if isinstance(label, bool) or (isinstance(label, int) and label in (0, 1)) else None


def wanted_by_label(row: Values) -> bool:
    """The label of a judged answer.

    Raises:
        DataError: it is neither true nor false.
    """
    judged = _judgement(row["label"])
    if judged is None:
        raise DataError(
            f"label is {row['label']!r}, expected true (a good answer) or false (a bad one)",
            fix="write true or false, or give the column another name",
        )
    return judged


def wanted_by_tag(row: Values) -> bool:
    """Of a row with turns, which may have LLaMA-Factory's `kto_tag` besides."""
    if row.get("kto_tag") in (None, ""):
        return True
    return wanted_by_label({"label": row["kto_tag"]})


def _prompt(row: Values, chosen: Sequence[Message]) -> list[Message]:
    """The turns before the answers: given, or what the chosen conversation begins with."""
    given = _asked(row)
    if not given:
        return list(chosen[:-1])
    if not any(turn.role == "user" for turn in chosen) or list(chosen[: len(given)]) == given:
        return given
    if not isinstance(row[_asked_in(row) or "prompt"], str):
        raise DataError(
            "chosen is a conversation that does not begin with the prompt",
            fix="write the answer alone, or leave the prompt out",
        )
    return list(chosen[:-1])  # a prompt in words, as some data sets have it beside whole conversations


def _asked_in(row: Values) -> str | None:
    return next((key for key in ASKED_IN if row.get(key) not in (None, "", [])), None)


def not_asked(row: Values) -> dict[str, Any]:
    """The columns that could have asked, and did not."""
    used = _asked_in(row)
    with_input = used == "instruction" and isinstance(row.get("input"), str)
    return {key: row[key] for key in ASKED_IN if key in row and key not in (used, "input" * with_input)}


def _asked(row: Values) -> list[Message]:
    """What the columns beside both answers ask; nothing where only the answers hold the request."""
    name = _asked_in(row)
    if name is None:
        return []
    asked = _turns(row[name], name, role="user")
    if name == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        return [Message("user", f"{asked[0].content}\n\n{row['input']}")]
    return asked


def _prompt_is_text(row: Values, chosen: Sequence[Message]) -> bool:
    """Whether the prompt is only what two texts begin with."""
    texts = isinstance(row["chosen"], str) and isinstance(row["rejected"], str)
    return texts and not _asked(row) and len(chosen) == 1


def _worse(value: Any, row: Values, messages: Sequence[Message]) -> str:
    turns = _turns(value, "rejected")
    if "chosen" in row and _prompt_is_text(row, _turns(row["chosen"], "chosen")):
        return _after(_common_text(row), value)
    request = list(messages[:-1])
    if system_of(row) and turns[0].role != "system":
        request = [turn for turn in request if turn.role != "system"]  # it came from a column of its own
    rest = turns[_shared(request, turns) :]
    if len(rest) != 1 or rest[0].role != "assistant":
        raise DataError(
            "chosen and rejected differ before the last answer, so they answer different requests",
            fix="let both have the same turns up to one last answer of the assistant",
        )
    return rest[0].text


def _turns(value: Any, name: str, role: str = "assistant") -> list[Message]:
    """Messages; a text is a turn of `role`, or a transcript."""
    value = read_turns_cell(value)
    if isinstance(value, list | dict):
        turns = read_chat(value, name)
        if not turns:
            raise DataError(f"{name} has no messages", fix="write them, or leave the example out")
        return turns
    text = read_text(value, name)
    parts = _TRANSCRIPT.split(text)
    if parts[0].strip() or len(parts) < 3:
        return [Message(role, text)]
    turns = [Message(_SPEAKERS[who], said) for who, said in zip(parts[1::2], parts[2::2], strict=True)]
    if turns[-1].role == "assistant" and not turns[-1].content.strip() and name == "prompt":
        turns.pop()  # a prompt that ends with "Assistant:"
    return turns


def _shared(prompt: Sequence[Message], turns: Sequence[Message]) -> int:
    """How many of the turns repeat the prompt: all of it, or none."""
    whole = list(turns[: len(prompt)]) == list(prompt)
    return len(prompt) if whole and len(turns) > len(prompt) else 0


def _common_text(row: Values) -> str:
    """What both texts begin with, up to the last whole word (TRL cuts inside words)."""
    common = commonprefix([row["chosen"], row["rejected"]])  # noqa: RUF071 characters are compared
    common = common[: common.rfind(" ") + 1].rstrip(" ")
    if not common.strip():
        raise DataError(
            "there is no prompt, and chosen and rejected begin differently", fix='give every row a "prompt"'
        )
    return str(common)


def _after(common: str, text: str) -> str:
    return text[len(common) :].lstrip(" ")


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
