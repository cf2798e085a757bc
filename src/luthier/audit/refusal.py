"""Refusals and the small talk of assistants in the answers.

Answers that another model wrote carry its habits: it refuses, says what it is, promises what comes and offers
more. Trained on, they come back for requests that should be answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from luthier.audit.assistant_phrases import (
    OPENING_WORDS,
    OPENINGS,
    REFUSALS,
    SELF_REFERENCES,
    find_phrase,
    may_hold_phrase,
    plain,
)
from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown
from luthier.examples.example import Example

_BEGINNING = 240  # characters in which an answer refuses, or says what it is
_OPENING = 120  # characters of its small talk
_RUN = 5  # words at an end that answers share
LEAST_EXAMPLES, LONG_WORDS = 50, 15
SHARE, WHOLE = 0.2, 0.95


def find_refusals(material: Material) -> list[Finding]:
    """One finding per answer that refuses or speaks as an AI; at most three on what many answers share.

    Score is 1 for the first; for openings and closings, the share of the answers that have it.

    Raises:
        NotApplicableError: the answers are labels.
    """
    if material.answer_kind == "label":
        raise NotApplicableError("the answers are labels")
    return [*find_refusing_answers(material), *_small_talk(material.all), *_shared_ends(material)]


def find_refusing_answers(material: Material) -> list[Finding]:
    """Of `find_refusals` what can be said of one answer by itself."""
    return [finding for example in material.all if (finding := refusal(example))]


def refusal(example: Example) -> Finding | None:
    """What is wrong with an answer that refuses, or says that an AI speaks, or None."""
    said = plain(example.answer[:_BEGINNING])
    if not may_hold_phrase(said):
        return None
    if found := find_phrase(said, REFUSALS):
        what, fix = "refuses", "write what should be answered"
    elif found := find_phrase(said, SELF_REFERENCES):
        what, fix = "speaks as an AI", "write it without"
    else:
        return None
    return Finding(
        check="refusal",
        severity="warning",
        score=1.0,
        message=f"the answer {what}: {shown(found.lstrip('.!?,:; '), 50)}",
        fix=f"{fix}, or leave the row out, unless it is what you want to teach here",
        examples=(example,),
    )


def talks(answer: str) -> bool:
    """Whether an answer begins with small talk."""
    start = answer[:_OPENING].lstrip()
    if not start.casefold().startswith(OPENING_WORDS):
        return False
    return OPENINGS.match(plain(answer[:_OPENING])) is not None


def _small_talk(examples: Sequence[Example]) -> list[Finding]:
    talking = [example for example in examples if talks(example.answer)]
    if not talking:
        return []
    return [small_talk(len(talking), len(talking) / len(examples), talking)]


def small_talk(count: int, share: float, members: Sequence[Example]) -> Finding:
    """So many answers begin with small talk; `members`, the first of them, are shown."""
    such = shown(members[0].answer, 30)
    message = f"{counted(count, 'answer')} with small talk at the start, such as {such}"
    fix = "begin with the answer itself, unless you want the talk in every answer"
    return Finding("refusal", "info", share, message, fix, tuple(members))


def _shared_ends(material: Material) -> list[Finding]:
    """The same words at the start, or at the end, of many long answers, but not of all."""
    if material.answer_kind != "text":
        return []
    long = [m for m, answer in enumerate(material.answers) if is_long(answer)]
    if len(long) < LEAST_EXAMPLES:
        return []
    findings = []
    for where, end in ENDS.items():
        ends = {m: end(material.answers[m]) for m in long}
        run, count = Counter(ends.values()).most_common(1)[0]
        if SHARE <= count / len(long) <= WHOLE:
            members = [material.all[m] for m in long if ends[m] == run]
            findings.append(shared_end(where, run, count / len(long), members))
    return findings


def shared_end(where: str, run: Sequence[str], share: float, members: Sequence[Example]) -> Finding:
    """This share of the longer answers has the same words at an end; `members` are shown."""
    message = f"{share:.0%} of the longer answers {where} with {shown(' '.join(run), 50)}"
    fix = "take it out, or write it in all of them: a model learns it as a coin toss"
    return Finding("refusal", "info", share, message, fix, tuple(members))


def is_long(answer: str) -> bool:
    """Whether a normalised answer is long enough for a start and an end of its own."""
    return answer.count(" ") >= LONG_WORDS - 1


def first_words(answer: str) -> tuple[str, ...]:
    """The words at the start of a normalised answer."""
    return tuple(answer.split(" ", _RUN)[:_RUN])


def last_words(answer: str) -> tuple[str, ...]:
    """The words at the end of a normalised answer."""
    return tuple(answer.rsplit(" ", _RUN)[-_RUN:])


ENDS: dict[str, Callable[[str], tuple[str, ...]]] = {"begin": first_words, "end": last_words}
