"""The forms that examples come in. Each is a name, the columns it needs, and one small converter.

`FORMATS` is tried in order, the most specific first. A converter takes a row and returns messages;
it raises `DataError` without a place, which the reader adds. Texts are kept to the letter: a space
at the end of an answer is a finding of the audit, not something to repair in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.errors import DataError
from luthier.examples.contents import SYSTEM, from_contents
from luthier.examples.example import Message
from luthier.examples.form import Conversation, Format, Values, check_conversation, convert_row
from luthier.examples.own_rows import OWN_FORMATS
from luthier.examples.pairs import (
    PASSAGES,
    from_completion,
    from_extract,
    from_instruction,
    from_query_with_calls,
    from_question,
    other_extracts,
    pair,
)
from luthier.examples.preferences import (
    ASKED_IN,
    from_choice,
    from_preferred,
    is_judged,
    is_true_or_false,
    not_asked,
    not_preferred,
    own_wanted,
    own_worse,
    rest_of_input,
    tools_of_input,
    wanted_by_label,
    wanted_by_tag,
    worse_answers,
)
from luthier.examples.ranked_answers import RANKS, SCORES, best_answer, other_answers
from luthier.examples.turns import is_turn, read_chat, read_text

__all__ = [
    "FORMATS",
    "PASSAGES",
    "Conversation",
    "Format",
    "check_conversation",
    "convert_row",
    "recognise_format",
]


_USUAL = (
    "messages; prompt + completion; instruction + output; question + answer; text + label; "
    "prompt + chosen + rejected; text"
)
_NAME_WORDS = 3  # a column's name has no more


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
    columns = list(dict.fromkeys(column for row in rows for column in row))
    found = ", ".join(columns) or "none"
    fix = f"name the columns like one of: {_USUAL}"
    if any(len(column.split()) > _NAME_WORDS for column in columns):
        fix = "the first line seems to be data: write a line of names above it, such as prompt,completion"
    raise DataError(f"columns not recognised: {found}", where=where, fix=fix)


def _chat(column: str) -> Callable[[Values], list[Message]]:
    return lambda row: read_chat(row[column], column)


def _from_text(row: Values) -> list[Message]:
    return [Message("assistant", read_text(row["text"], "text"))]


def _is_plain(row: Values) -> bool:
    """Not one message of a conversation, nor a text whose labels would be dropped in silence."""
    return row.keys().isdisjoint(("role", "labels")) and not is_turn(row)


_TOOLS = ("tools", "functions")
_BESIDE_QUESTIONS = (*PASSAGES, "options", "choices")
_CHOICE = ("chosen", "rejected")

FORMATS = (
    *OWN_FORMATS,
    Format(
        "openai preference",
        ("input", "preferred_output", "non_preferred_output"),
        (),
        from_preferred,
        worse=not_preferred,
        tools=tools_of_input,
        keeps=rest_of_input,
    ),
    Format(
        "chosen/rejected", _CHOICE, (*ASKED_IN, *_TOOLS), from_choice, worse=worse_answers, keeps=not_asked
    ),
    *(
        Format(
            f"{asked}/{listed} ranked",
            (asked, listed),
            (*RANKS, *SCORES),
            best_answer(asked, listed),
            worse=other_answers(listed),
        )
        for asked, listed in (
            *(("prompt", listed) for listed in ("answers", "responses", "completions")),
            *((asked, "completions") for asked in ("instruction", "question")),
            *((asked, "responses") for asked in ("instruction", "question")),
        )
    ),
    *(
        Format(
            f"{name}/label",
            (listed, "label"),
            _TOOLS,
            _chat(listed),
            when=is_true_or_false,
            wanted=wanted_by_label,
        )
        for name, listed in (("messages", "messages"), ("sharegpt", "conversations"))
    ),
    Format(
        "messages",
        ("messages",),
        ("rejected", "wanted", *_TOOLS),
        _chat("messages"),
        wanted=own_wanted,
        worse=own_worse,
    ),
    Format(
        "sharegpt", ("conversations",), ("kto_tag", *_TOOLS), _chat("conversations"), wanted=wanted_by_tag
    ),
    Format("sharegpt", ("conversation",), ("kto_tag", *_TOOLS), _chat("conversation"), wanted=wanted_by_tag),
    Format("messages", ("chat_messages",), _TOOLS, _chat("chat_messages")),
    Format("gemini", ("contents",), (*SYSTEM, *_TOOLS), from_contents),
    Format(
        "prompt/completion/label",
        ("prompt", "completion", "label"),
        _TOOLS,
        from_completion,
        when=is_judged,
        wanted=wanted_by_label,
    ),
    Format("prompt/completion", ("prompt", "completion"), _TOOLS, from_completion),
    Format("alpaca", ("instruction", "output"), ("input", "history", *_TOOLS), from_instruction("output")),
    Format("query/answers/tools", ("query", "answers", "tools"), (), from_query_with_calls),
    Format("question/answer", ("question", "answer"), _BESIDE_QUESTIONS, from_question("question", "answer")),
    Format("question/answers", ("question", "answers"), PASSAGES, from_extract, keeps=other_extracts),
    *(
        Format(f"{asked}/{answered}", (asked, answered), _BESIDE_QUESTIONS, from_question(asked, answered))
        for asked, answered in (
            *(("question", "response"), ("query", "response"), ("query", "answer")),
            ("question", "answerkey"),
        )
    ),
    Format(
        "instruction/response",
        ("instruction", "response"),
        ("input", "history", *PASSAGES),
        from_instruction("response"),
    ),
    *(
        Format(f"{asked}/{answered}", (asked, answered), (), pair(asked, answered))
        for asked, answered in (
            ("prompt", "response"),
            ("prompt", "answer"),
            ("problem", "solution"),
            ("input", "output"),
            ("input_text", "output_text"),
            ("inputs", "targets"),
            ("text", "label"),
            ("sentence", "label"),
            ("document", "summary"),
            ("article", "summary"),
            ("article", "highlights"),
            ("dialogue", "summary"),
            ("text", "summary"),
            ("source", "target"),
            *(
                ("text", labelled)
                for labelled in ("category", "class", "sentiment", "intent", "emotion", "target")
            ),
        )
    ),
    Format("text", ("text",), (), _from_text, when=_is_plain, asks=False),
)
