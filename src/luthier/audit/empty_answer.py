"""Answers that say nothing: blank, or something that was to be filled in later."""

from __future__ import annotations

from luthier.audit.finding import Finding, Material, shown
from luthier.examples.example import Example

_LONGEST = 40
_PLACEHOLDERS = frozenset(
    (
        *("todo", "tbd", "fixme", "tba", "nan", "undefined", "placeholder", "lorem ipsum", "[answer]"),
        *("insert answer here", "your answer here", "answer goes here", "<answer>", "{answer}", "{{answer}}"),
        *("#n/a", "#ref!", "#value!", "#name?", "#div/0!"),  # what spreadsheets show for an error
    )
)


def find_empty_answers(material: Material) -> list[Finding]:
    """One finding per example: an error for a blank answer, a warning for a placeholder; score is 1."""
    return [found for example in material.all if (found := empty_answer(example))]


def empty_answer(example: Example) -> Finding | None:
    """What is wrong with an answer that is blank or a placeholder such as `TODO`, or None."""
    if len(example.answer) > _LONGEST and not example.answer.isspace():
        return None
    said = example.answer.strip().casefold()
    said = said if said in _PLACEHOLDERS else said.rstrip(" .:!…")
    if said and said not in _PLACEHOLDERS:
        return None
    return Finding(
        check="empty_answer",
        severity="warning" if said else "error",
        score=1.0,
        message=f"the answer is {shown(example.answer)}, a placeholder" if said else "the answer is blank",
        fix="write the answer, or leave the row out",
        examples=(example,),
    )
