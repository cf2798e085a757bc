"""Answers that were cut off: an open bracket, quote or fence, half a sentence, a length that is a cap."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from luthier.audit.finding import Finding, Material, NotApplicableError, Severity, counted, shown
from luthier.audit.sentence_ends import Words, are_cut, ends, is_sentence, stops
from luthier.examples.answers import parse_structure
from luthier.examples.example import Example

_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_OPENING = {"}": "{", "]": "["}
LEAST_SENTENCES = 40
_NEARLY_ALL = 0.95
LEAST_CAP = {"characters": 100, "words": 40}
_CAP_ANSWERS, _CAP_SHARE, NEARLY_CAP = 3, 0.01, 0.95


def find_unfinished_answers(material: Material) -> list[Finding]:
    """One finding per answer that stays open, one for all that end in mid-sentence, one for those at a cap.

    Score is 1 for the first; else the share of the answers.

    Raises:
        NotApplicableError: the answers are labels.
    """
    if material.answer_kind == "label":
        raise NotApplicableError("the answers are labels")
    found = find_open_answers(material)
    known = {id(finding.examples[0]) for finding in found}
    rest = [example for example in material.all if id(example) not in known]
    return [*found, *_at_a_cap(rest), *_mid_sentence(rest)]


def find_open_answers(material: Material) -> list[Finding]:
    """Of `find_unfinished_answers` what can be said of one answer by itself."""
    return [finding for example in material.all if (finding := open_answer(example))]


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
    for unit, lengths in (
        ("characters", [len(example.answer) for example in examples]),
        ("words", [len(example.answer.split()) for example in examples]),
    ):
        cap = max(lengths, default=0)
        members = [example for example, n in zip(examples, lengths, strict=True) if n == cap]
        nearly = sum(cap > n >= NEARLY_CAP * cap for n in lengths)
        bare = sum(not ends(example.answer) for example in members)
        if is_cap(unit, cap, (len(examples), len(members), nearly, bare)):
            return [cap_finding(unit, cap, len(members) / len(examples), len(members), members)]
    return []


def is_cap(unit: str, cap: int, counts: tuple[int, int, int, int]) -> bool:
    """Whether the largest length is one at which answers were cut.

    Args:
        unit: `characters` or `words`.
        counts: all answers, those of this length, those nearly as long, and of the former those that have
            no end.
    """
    answers, members, nearly, bare = counts
    many = members >= max(_CAP_ANSWERS, _CAP_SHARE * answers, 2 * nearly)
    return many and cap >= LEAST_CAP[unit] and 2 * bare > members


def cap_finding(unit: str, cap: int, share: float, count: int, members: Sequence[Example]) -> Finding:
    """Answers of one length, the longest there is, that stop without an end; `members` are shown."""
    message = f"{counted(count, 'answer')} of {cap:,} {unit}, which none exceeds: cut at a cap"
    fix = "write the rest, or leave the rows out; raise the limit of what wrote them"
    return Finding("unfinished_answer", "warning", share, message, fix, tuple(members))


def _mid_sentence(examples: Sequence[Example]) -> list[Finding]:
    long = [example for example in examples if is_sentence(example.answer)]
    bare = [example for example in long if not ends(example.answer)]
    if not bare or len(long) < LEAST_SENTENCES:
        return []
    words = Words(example.answer for example in long)
    known = {id(example) for example in bare}
    ended = [example.answer for example in long if id(example) not in known]
    stopped = [e for e in bare if stops(e.answer) or words.is_begun(e.answer)]
    share = len(bare) / len(long)
    if not is_few(share) and not are_cut([example.answer for example in bare], ended, words):
        return []
    return [sentence_finding(len(bare), share, (stopped or bare)[0], bare, stopped=bool(stopped))]


def is_few(share: float) -> bool:
    """Whether so few answers have no mark at their end that they are the exception, however they stop."""
    return share <= 1 - _NEARLY_ALL


def sentence_finding(
    count: int, share: float, first: Example, members: Sequence[Example], *, stopped: bool
) -> Finding:
    """Answers without a mark at their end, where the others have one, or which were cut.

    A warning when one of them, such as the `first`, stops at a word that ends no sentence, or within a word.
    `members` are shown.
    """
    severity: Severity = "warning" if stopped else "info"
    told = f"{counted(count, 'answer')} without a mark at the end"
    if is_few(share):
        told += f", where the other {1 - share:.1%} have one"
        fix = "see whether they were cut off, and write the rest"
    else:
        told += f" ({share:.0%}), many of them in mid-sentence"
        fix = "write the rest, or leave the rows out; raise the limit of what wrote them"
    quoted = shown("…" + first.answer.rstrip()[-40:], 42)
    return Finding("unfinished_answer", severity, share, f"{told}: {quoted}", fix, tuple(members))
