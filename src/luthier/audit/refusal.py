"""Refusals and the small talk of assistants in the answers.

Answers that another model wrote carry its habits: it refuses, says what it is, promises what comes and offers
more. Trained on, they come back for requests that should be answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from luthier.audit.assistant_phrases import OPENINGS, REFUSALS, SELF_REFERENCES, find_phrase, plain
from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown
from luthier.examples.example import Example

_BEGINNING = 240  # characters in which an answer refuses, or says what it is
_RUN = 5  # words at an end that answers share
_LEAST_EXAMPLES, _LONG_WORDS = 50, 15
_SHARE, _WHOLE = 0.2, 0.95


def find_refusals(material: Material) -> list[Finding]:
    """One finding per answer that refuses or speaks as an AI; at most three on what many answers share.

    Score is 1 for the first; for openings and closings, the share of the answers that have it.

    Raises:
        NotApplicableError: the answers are labels.
    """
    if material.answer_kind == "label":
        raise NotApplicableError("the answers are labels")
    found = [finding for example in material.all if (finding := refusal(example))]
    return [*found, *_small_talk(material.all), *_shared_ends(material)]


def refusal(example: Example) -> Finding | None:
    """What is wrong with an answer that refuses, or says that an AI speaks, or None."""
    said = plain(example.answer[:_BEGINNING])
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


def _small_talk(examples: Sequence[Example]) -> list[Finding]:
    talking = [example for example in examples if OPENINGS.match(plain(example.answer[:120]))]
    if not talking:
        return []
    such = shown(talking[0].answer, 30)
    message = f"{counted(len(talking), 'answer')} with small talk at the start, such as {such}"
    fix = "begin with the answer itself, unless you want the talk in every answer"
    share = len(talking) / len(examples)
    return [Finding("refusal", "info", share, message, fix, tuple(talking))]


def _shared_ends(material: Material) -> list[Finding]:
    """The same words at the start, or at the end, of many long answers, but not of all."""
    if material.answer_kind != "text":
        return []
    long = [m for m, answer in enumerate(material.answers) if answer.count(" ") >= _LONG_WORDS - 1]
    if len(long) < _LEAST_EXAMPLES:
        return []
    findings = []
    for where, end in (("begin", _first), ("end", _last)):
        ends = {m: end(material.answers[m]) for m in long}
        run, count = Counter(ends.values()).most_common(1)[0]
        share = count / len(long)
        if _SHARE <= share <= _WHOLE:
            members = tuple(material.all[m] for m in long if ends[m] == run)
            message = f"{share:.0%} of the longer answers {where} with {shown(' '.join(run), 50)}"
            fix = "take it out, or write it in all of them: a model learns it as a coin toss"
            findings.append(Finding("refusal", "info", share, message, fix, members))
    return findings


def _first(answer: str) -> tuple[str, ...]:
    return tuple(answer.split(" ", _RUN)[:_RUN])


def _last(answer: str) -> tuple[str, ...]:
    return tuple(answer.rsplit(" ", _RUN)[-_RUN:])
