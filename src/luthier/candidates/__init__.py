"""Candidates: what a user could do instead of fine-tuning, or with it."""

from luthier.candidates.answer import Answer, ask
from luthier.candidates.prompting import few_shot_messages, prompt_messages, retrieval_messages
from luthier.candidates.scratch import answer_from_scratch

__all__ = [
    "Answer",
    "answer_from_scratch",
    "ask",
    "few_shot_messages",
    "prompt_messages",
    "retrieval_messages",
]
