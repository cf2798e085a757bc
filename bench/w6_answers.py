"""W6: what evaluation costs. Scores of four options after a long context; answers behind a shared prompt."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.peers import LmEvalSettings, TransformersSettings
from bench.w2_shared_prefix import few_shot_prompts
from bench.workload import ChoiceWorkload, Goal, Question, WritingWorkload
from luthier.assets import suite_file

if TYPE_CHECKING:
    from luthier.chat import ChatFormat

CONTEXT = 600
OPTIONS = 4
PROMPTS = 128
_OPTION = re.compile(r"^\s*[A-D]\.\s*", re.MULTILINE)


@dataclass(frozen=True)
class Item:
    """A question of OpenBookQA."""

    question: str
    options: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        """What stands before an option."""
        return f"Question: {self.question}\nAnswer:"


def science_questions(tokenizer: Any, count: int) -> list[Question]:
    """W6a: OpenBookQA behind answered questions of its own, drawn anew for every question.

    As many answered questions as fit into the context's length. Questions share next to nothing with each
    other; the four options of one share its context.
    """
    items = [item for item in _items() if len(item.options) == OPTIONS]
    questions: list[Question] = []
    for place, item in enumerate(items):
        if len(questions) == count:
            return questions
        question = _question(tokenizer, item, items, random.Random(f"w6a/{place}"))
        if question is not None:
            questions.append(question)
    raise ValueError(f"{count} questions are needed, the data has {len(questions)}: ask for fewer pairs")


def _items() -> list[Item]:
    rows = map(json.loads, suite_file("OpenBookQA/test.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        Item(
            row["question"].strip(),
            tuple(part.strip() for part in _OPTION.split(row["options"]) if part.strip()),
            _OPTION.sub("", row["answer"]).strip(),
        )
        for row in rows
    ]


def _question(tokenizer: Any, item: Item, items: Sequence[Item], dice: random.Random) -> Question | None:
    """The question, or None where an option's tokens do not follow those of the context."""
    others = [other for other in items if other is not item]
    context = item.text
    for other in dice.sample(others, len(others)):
        longer = f"{other.text} {other.answer}\n\n{context}"
        if len(_encode(tokenizer, longer)) > CONTEXT:
            break
        context = longer
    before = _encode(tokenizer, context)
    options = tuple(f" {option}" for option in item.options)
    ids = [_encode(tokenizer, context + option) for option in options]
    if any(whole[: len(before)] != before or len(whole) == len(before) for whole in ids):
        return None
    return Question(
        context, options, tuple(map(tuple, ids)), tuple(len(whole) - len(before) for whole in ids)
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def triage_prompts(chat: ChatFormat) -> list[Sequence[int]]:
    """W6b: the demo's tickets behind W2b's few-shot prompt."""
    return few_shot_prompts(chat, PROMPTS)


WORKLOADS = (
    ChoiceWorkload(
        "w6a",
        "scores of 4 options after a context of 600 tokens",
        Goal(speed=4.0),
        4,
        science_questions,
        (LmEvalSettings(1), LmEvalSettings(4), LmEvalSettings(16)),
    ),
    WritingWorkload(
        "w6b",
        "128 prompts with 350 tokens in common, 32 new tokens each",
        Goal(speed=4.0),
        32,
        triage_prompts,
        (
            TransformersSettings(16),
            TransformersSettings(32),
            TransformersSettings(32, "static"),
        ),
    ),
    WritingWorkload(
        "w6b-prefix",
        "the same prompts; the peer's caller computes their common prefix once, by hand",
        Goal(speed=1.0, never_slower=True),
        32,
        triage_prompts,
        (
            TransformersSettings(32, "prefix"),
            TransformersSettings(64, "prefix"),
            TransformersSettings(128, "prefix"),
        ),
    ),
)
