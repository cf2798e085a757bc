"""What a recipe says of its candidates: what they are shown, how they are asked, what a request costs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from luthier.recipe.grader_options import Section

MAX_SHOTS = 64


class Prices(Section):
    """What a request costs, so that candidates are compared in money: a provider's prices, or an hour's."""

    prompt: float = Field(0, ge=0, description="Price of a million prompt tokens.")
    answer: float = Field(0, ge=0, description="Price of a million answer tokens.")
    tuned_prompt: float | None = Field(
        None, ge=0, description="Price of a million prompt tokens of a tuned model; as `prompt` when absent."
    )
    tuned_answer: float | None = Field(
        None, ge=0, description="Price of a million answer tokens of a tuned model; as `answer` when absent."
    )
    hour: float = Field(
        0, ge=0, description="Price of an hour of this machine: for what is served by yourself."
    )
    currency: str = Field("USD", min_length=1, max_length=12, description="Currency of the prices.")

    def of_tokens(self, candidate: str) -> tuple[float, float]:
        """What a million prompt tokens and a million answer tokens of a candidate cost."""
        if candidate != "tuned":
            return self.prompt, self.answer
        own = self.tuned_prompt, self.tuned_answer
        return (self.prompt if own[0] is None else own[0], self.answer if own[1] is None else own[1])


TunedSystem = Annotated[
    str | None,
    Field(
        description="System prompt that tuned alone is trained and asked with, in place of every other; "
        '"" for none; the others\' when absent.'
    ),
]


def _check_shots(value: Any) -> Any:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    fits = all(type(number) is int and 1 <= number <= MAX_SHOTS for number in numbers)
    if not numbers or not fits or len(set(numbers)) != len(numbers):
        raise ValueError(f"expected a whole number from 1 to {MAX_SHOTS}, or a list of different ones")
    return tuple(sorted(numbers)) if isinstance(value, list | tuple) else value


def _check_prompts(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError("expected a list of system prompts")
    if len(set(value)) != len(value):
        raise ValueError("a wording is there twice")
    return tuple(value)


Shots = Annotated[
    int | tuple[int, ...],
    BeforeValidator(_check_shots),
    Field(
        description="Examples in the prompt of few_shot and retrieval; of a list, the number that does best "
        "on validation, for each candidate."
    ),
]
Prompts = Annotated[
    tuple[str, ...],
    BeforeValidator(_check_prompts),
    Field(
        description="Other wordings of the system prompt, each in place of every other: prompt, few_shot and "
        "retrieval are asked with the one that does best on validation."
    ),
]
Constrain = Annotated[
    Literal["auto", "none", "labels", "schema"],
    Field(
        description="What the answers of all candidates are kept to: the labels of the training answers, a "
        "JSON Schema, or what suits the grader (auto). Default none: a constraint hides malformed answers, "
        "and holds in use only where the server that answers constrains too."
    ),
]


class Retrieval(Section):
    """How retrieval finds what it shows."""

    by: Literal["bm25", "embeddings", "both"] = Field(
        "bm25", description="By shared words, by vectors, or by both ranks together."
    )
    embedder: str | None = Field(
        None,
        description="A sentence-transformers model (folder or hub id) for the vectors; the base model's own "
        "hidden states when absent.",
    )
    passages: int = Field(3, ge=1, le=50, description="Passages of `documents` in the prompt.")
    words: int = Field(120, ge=10, le=2000, description="Length of a passage, in words.")


Documents = Annotated[
    str | None,
    Field(
        description="A folder or file (.txt, .md, .jsonl) of documents that retrieval may show beside the "
        "examples; passages that hold a held-out request are left out."
    ),
]
ScratchKind = Annotated[
    Literal["auto", "ngrams", "probe", "decoder"],
    Field(
        description="The small model: linear on n-grams; a linear probe on the base model's hidden states, "
        "for labels; a tiny decoder, for text_similarity. Of what suits the task, auto is the best on "
        "validation."
    ),
]
