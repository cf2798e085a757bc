"""Candidates: what a user could do instead of fine-tuning, or with it."""

from luthier.candidates.answer import Answer, ask
from luthier.candidates.prompting import (
    Nearby,
    few_shot_messages,
    prompt_messages,
    retrieval_messages,
    seen_by_tuned,
    without_system,
)
from luthier.candidates.scratch import Scratch, answer_from_scratch, is_classification

__all__ = [
    "Answer",
    "Nearby",
    "Scratch",
    "answer_from_scratch",
    "ask",
    "few_shot_messages",
    "is_classification",
    "prompt_messages",
    "retrieval_messages",
    "seen_by_tuned",
    "without_system",
]
