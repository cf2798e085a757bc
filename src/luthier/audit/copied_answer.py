"""Answers that repeat what was asked."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown
from luthier.examples.example import Example

LEAST_WORDS = 4  # "thank you" to "thank you" is an answer
_USUAL_SHARE = 0.05  # where so many inputs are returned as they are, it is the task: nothing to correct


def find_copied_answers(material: Material) -> list[Finding]:
    """One finding per copy, or one for all where they are many; score is their share of the examples.

    Raises:
        NotApplicableError: the answers are labels, which an input may spell.
    """
    if material.answer_kind == "label":
        raise NotApplicableError("the answers are labels")
    copied = [example for example in material.all if is_copied(example)]
    share = len(copied) / len(material.all)
    if is_usual(len(copied), share):
        return [usual_copies(len(copied), share, copied)]
    return [copy_finding(example, share) for example in copied]


def is_usual(copies: int, share: float) -> bool:
    """Whether so many answers repeat their input that it is the task, or columns are mixed up."""
    return copies > 1 and share >= _USUAL_SHARE


def usual_copies(count: int, share: float, members: Sequence[Example]) -> Finding:
    """The finding on all copies where they are many; `members` are shown."""
    message = f"{counted(count, 'answer')} ({share:.0%}) repeat the input word for word"
    fix = "nothing, where an input may need no change; otherwise columns were mixed up"
    return Finding("copied_answer", "info", share, message, fix, tuple(members))


def copy_finding(example: Example, share: float) -> Finding:
    """The finding on one copy, where they are this share of the examples."""
    return Finding(
        check="copied_answer",
        severity="warning",
        score=share,
        message=f"the answer repeats a turn before it: {shown(example.answer, 40)}",
        fix="write the answer; such rows teach the model to echo",
        examples=(example,),
    )


def is_copied(example: Example) -> bool:
    """Whether the answer is a turn before it, word for word; short answers may be."""
    answer = example.answer.strip()
    if answer.count(" ") < LEAST_WORDS - 1:
        return False
    return any([message.text.strip() == answer for message in example.request])  # noqa: C419 half the time
