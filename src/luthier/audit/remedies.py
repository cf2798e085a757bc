"""What is done about a fault without asking, because only one repair is possible; each is a pure function.

What could be meant as it is, is left alone: a marker that a text speaks about, an accent that may be one, the
indentation of code. Every remedy applied to its own result changes nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from luthier.audit.encoding import repair_misread
from luthier.audit.exact_duplicate import copy_key
from luthier.examples.answers import kind_of_answers
from luthier.examples.example import Example
from luthier.examples.wording import normalise, request_text

ENDS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|end|>", "<end_of_turn>",
    "</s>", "<eos>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip
BEGINNINGS = (
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<s>",
    "<bos>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
)
_HEADER = re.compile(
    r"<\|im_start\|>(\w+)[ \t]*\n"
    r"|<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*"
    r"|<start_of_turn>(\w+)[ \t]*\n"
    r"|<\|(user|assistant|system)\|>[ \t]*\n"
)
_MARKUP = re.compile(
    "|".join(map(re.escape, (*ENDS, *BEGINNINGS)))
    + r"|<\|im_start\|>|<\|(?:start|end)_header_id\|>|<start_of_turn>|<\|(?:user|assistant|system)\|>"
    r"|\[/?INST\]|<</?SYS>>"
)
_SPEAKERS = {"model": "assistant", "developer": "system"}
_JOINERS = re.compile("(?<![^\x00-\x7f])[\u200c\u200d](?![^\x00-\x7f])")
_ALWAYS_INVISIBLE = re.compile("[\u2060-\u2065\u206a-\u206f\ufeff\u00ad]")
_BREAKABLE = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"  # scripts that mark where a line may break
_ZERO_WIDTH_SPACE = re.compile(f"(?<![{_BREAKABLE}])\u200b(?![{_BREAKABLE}])")
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007f]+)|[\U000e0000-\U000e007f]")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BREAKS = re.compile(r"\n?[\x0b\x0c]+\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_NO_BREAK = re.compile("(?<=[^\\W\\d_])\u00a0(?=[^\\W\\d_]{2})")
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
_INDENTED = re.compile(r"^(?:\t| {2,})\S", re.MULTILINE)


def repair_characters(text: str) -> str:
    """Misread UTF-8 read rightly; control and invisible characters taken out.

    Lost characters stay, as nobody knows them, and so do entities, which markup may need.

    >>> repair_characters("cafÃ© \\x00is\\u200b open")
    'café is open'
    """
    while text != (better := _repair_once(text)):
        text = better
    return text


def _repair_once(text: str) -> str:
    if not text.isascii():
        text = _ALWAYS_INVISIBLE.sub("", repair_misread(text))
        text = _JOINERS.sub("", _ZERO_WIDTH_SPACE.sub("", text))
        text = _TAGS.sub(lambda match: match[1] or "", text)
        text = text if _RIGHT_TO_LEFT.search(text) else _DIRECTION.sub("", text)
        text = _NO_BREAK.sub(" ", text)
    if _CONTROL.search(text):
        text = _CONTROL.sub("", _BREAKS.sub("\n", _TERMINAL.sub("", text)))
    return text


def strip_markup(example: Example) -> list[str]:
    """What each message says without the markers around it, where that leaves none in the whole example.

    Where one is left, the example may be about markers, and stays as it is.
    """
    contents = [message.content for message in example.messages]
    if not any(map(_MARKUP.search, example.texts)):
        return contents
    bare = [_bare(message.content, message.role) for message in example.messages]
    others = (*bare, *example.rejected)
    return contents if any(map(_MARKUP.search, others)) else bare


def _bare(text: str, role: str) -> str:
    inner, opened = _without_beginning(text.strip(), role)
    if (role == "assistant" or opened) and "<s>" not in inner:
        while end := next((mark for mark in ENDS if inner.endswith(mark)), None):
            inner = inner.removesuffix(end).rstrip()
    if role == "user" and inner.startswith("[INST]") and inner.endswith("[/INST]"):
        inner = inner[len("[INST]") : -len("[/INST]")].strip()
    return text if inner == text.strip() else inner


def _without_beginning(text: str, role: str) -> tuple[str, bool]:
    """The text without BOS markers and a header of its own role, and whether it had any."""
    begun = text
    while mark := next((mark for mark in BEGINNINGS if begun.startswith(mark)), None):
        struck = mark == "<s>" and role != "assistant" and begun.count("<s>") == 1 and "</s>" in begun
        if struck:
            break  # struck-through HTML
        begun = begun.removeprefix(mark).lstrip()
    header = _HEADER.match(begun)
    if header and (name := header[header.lastindex or 0]) and _SPEAKERS.get(name, name) == role:
        begun = begun[header.end() :]
    return begun, begun != text


def is_code(answers: Iterable[str]) -> bool:
    """Whether answers begin with indentation that belongs to their lines, as the bodies of functions do."""
    for answer in answers:
        body = _BLANK_LINES.sub("", answer)
        if "\n" in body.strip() and _INDENTED.match(body) and len(_INDENTED.findall(body)) > 1:
            return True
    return False


def tidy_answer(answer: str, *, code: bool) -> str:
    """An answer without spaces and line breaks at its ends, its lines ending with line feeds.

    Args:
        code: leave the indentation of the first line.

    >>> tidy_answer(" billing\\r\\n", code=False)
    'billing'
    """
    answer = answer.replace("\r\n", "\n").replace("\r", "\n").rstrip()
    return _BLANK_LINES.sub("", answer) if code else answer.lstrip()


def usual_spellings(examples: Sequence[Example]) -> Mapping[str, str]:
    """By normalised label, the spelling that most answers have; empty where the answers are no labels."""
    wanted = [example for example in examples if example.wanted and example.request]
    if kind_of_answers(wanted) != "label":
        return {}
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for example in wanted:
        if label := normalise(example.answer):  # marks alone have nothing else to be told by
            spellings[label][example.answer.strip()] += 1
    return {label: counts.most_common(1)[0][0] for label, counts in spellings.items() if len(counts) > 1}


def copies(examples: Sequence[Example]) -> dict[int, int]:
    """Position of each exact duplicate to that of the first of its kind.

    Not counted are those of which tools, calls or a column of words beside the conversation differ: what
    tells them apart may have been left unread.
    """
    first: dict[object, int] = {}
    found = {}
    for number, example in enumerate(examples):
        key = _copy_key(example)
        if (other := first.setdefault(key, number)) != number:
            found[number] = other
    return found


def _copy_key(example: Example) -> object:
    request, answer = request_text(example), normalise(example.answer)
    if not (request and answer and all(map(normalise, example.rejected))):
        letters = tuple(m.content for m in example.messages), example.rejected  # marks alone: to the letter
    else:
        letters = (), ()
    beside = sorted(
        (name, value)
        for name, value in example.fields.items()
        if isinstance(value, str) and " " in value.strip()
    )
    calls = tuple(message.tool_calls for message in example.messages)
    return request, *copy_key(example, answer), letters, calls, str(beside), str(example.tools)
