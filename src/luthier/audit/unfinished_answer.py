"""Answers that were cut off: an open bracket, quote or fence, half a sentence, a length that is a cap."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from luthier.audit.finding import Finding, Material, NotApplicableError, Severity, counted, shown
from luthier.examples.answers import parse_structure
from luthier.examples.example import Example

_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_OPENING = {"}": "{", "]": "["}
_LEAST_EXAMPLES = 40
_LONG_WORDS = 8
_NEARLY_ALL = 0.95
_LEAST_CAP = {"characters": 100, "words": 40}
_CAP_ANSWERS, _CAP_SHARE, _NEARLY_CAP = 3, 0.01, 0.95
_NO_END = frozenset(
    (
        *(
            "the",
            "a",
            "an",
            "of",
            "and",
            "or",
            "but",
            "because",
            "with",
            "from",
            "than",
            "its",
            "their",
            "be",
        ),
        *("der", "die", "das", "und", "oder", "ein", "eine", "mit", "von", "zum", "zur", "weil", "le", "la"),
        *("les", "un", "une", "des", "du", "et", "ou", "avec", "el", "los", "las", "una", "con", "del", "y"),
    )
)
_CLOSERS = "\"'”’»›)]}*_`>」』）】"
_LIST_ITEM = re.compile(r"^\s*(?:[-*•|#>]|\d{1,3}[.)]|[a-z][.)])\s?", re.IGNORECASE)


def find_unfinished_answers(material: Material) -> list[Finding]:
    """One finding per answer that stays open, one for all that end in mid-sentence, one for those at a cap.

    Score is 1 for the first; else the share of the answers.

    Raises:
        NotApplicableError: the answers are labels.
    """
    if material.answer_kind == "label":
        raise NotApplicableError("the answers are labels")
    found = [finding for example in material.all if (finding := open_answer(example))]
    known = {id(finding.examples[0]) for finding in found}
    rest = [example for example in material.all if id(example) not in known]
    return [*found, *_at_a_cap(rest), *_mid_sentence(rest)]


def open_answer(example: Example) -> Finding | None:
    """What is wrong with an answer whose JSON or block of code is never closed, or None."""
    answer = example.answer
    what = None
    if answer.lstrip()[:1] in ("{", "[") and parse_structure(answer) is None:
        what = _open_structure(answer)
    elif "```" in answer or "~~~" in answer:
        marks = Counter(_FENCE.findall(answer))
        what = "a block of code is never closed" if any(n % 2 for n in marks.values()) else None
    if what is None:
        return None
    return Finding(
        check="unfinished_answer",
        severity="error",
        score=1.0,
        message=f"{what}; the answer ends with {shown(answer[-40:], 42)}",
        fix="write the rest, or leave the row out: trained on, it teaches to stop in the middle",
        examples=(example,),
    )


def _open_structure(answer: str) -> str | None:
    """Which bracket or quote of a JSON text is still open at its end; None for anything else."""
    if not re.match(r"\s*(?:\{\s*(?:\"|\}|$)|\[\s*(?:[\[{\"\d\]tfn-]|$))", answer):
        return None
    open_: list[str] = []
    quoted = escaped = False
    for character in answer:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "{[":
            open_.append(character)
        elif character in _OPENING and (not open_ or open_.pop() != _OPENING[character]):
            return None
    if not open_:
        return None
    return f"the JSON is cut off inside {'a text' if quoted else repr(open_[-1])}"


def _at_a_cap(examples: Sequence[Example]) -> list[Finding]:
    """Answers of one length, the longest there is, that stop without an end, while few are nearly as long."""
    for unit, lengths in (
        ("characters", [len(example.answer) for example in examples]),
        ("words", [len(example.answer.split()) for example in examples]),
    ):
        cap = max(lengths, default=0)
        members = [example for example, n in zip(examples, lengths, strict=True) if n == cap]
        nearly = sum(cap > n >= _NEARLY_CAP * cap for n in lengths)
        many = len(members) >= max(_CAP_ANSWERS, _CAP_SHARE * len(examples), 2 * nearly)
        if (
            many
            and cap >= _LEAST_CAP[unit]
            and 2 * sum(not _ends(example.answer) for example in members) > len(members)
        ):
            message = f"{counted(len(members), 'answer')} of {cap:,} {unit}, which none exceeds: cut at a cap"
            fix = "write the rest, or leave the rows out; raise the limit of what wrote them"
            share = len(members) / len(examples)
            return [Finding("unfinished_answer", "warning", share, message, fix, tuple(members))]
    return []


def _mid_sentence(examples: Sequence[Example]) -> list[Finding]:
    """Answers without a mark at their end, where nearly all others have one.

    A warning when one of them stops at a word that ends no sentence, or within a word.
    """
    long = [example for example in examples if example.answer.count(" ") >= _LONG_WORDS - 1]
    members = [example for example in long if not _ends(example.answer)]
    share = len(members) / max(1, len(long))
    if not members or len(long) < _LEAST_EXAMPLES or share > 1 - _NEARLY_ALL:
        return []
    words = Counter(word for example in long for word in example.answer.casefold().split())
    stopped = [e for e in members if _stops(e.answer, words)]
    message = (
        f"{counted(len(members), 'answer')} without a mark at the end, where the other {1 - share:.1%} have "
        f"one: {shown('…' + (stopped or members)[0].answer.rstrip()[-40:], 42)}"
    )
    fix = "see whether they were cut off, and write the rest"
    severity: Severity = "warning" if stopped else "info"
    return [Finding("unfinished_answer", severity, share, message, fix, tuple(members))]


def _stops(answer: str, words: Mapping[str, int]) -> bool:
    """Whether a text stops at a word that ends no sentence, or at the beginning of a word known otherwise."""
    last = answer.casefold().split()[-1]
    if last in _NO_END or last.endswith((",", "-", "–")):
        return True
    return len(last) > 2 and words[last] == 1 and any(w.startswith(last) and n > 1 for w, n in words.items())


def _ends(answer: str) -> bool:
    """Whether a text ends as sentences, lists, code and formulas do."""
    text = answer.rstrip()
    last = text.rsplit("\n", 1)[-1]
    body = last.rstrip(_CLOSERS)
    if len(body) < len(last.rstrip()) or _LIST_ITEM.match(last):
        return True  # something was closed, or a list ends, whose items are no sentences
    kind = unicodedata.category(text[-1:] or " ")
    return (
        kind in ("Po", "Pe", "Pf", "So", "Sm", "Sk", "Sc") and text[-1:] not in ",;&@/\\"
    ) or "://" in last
