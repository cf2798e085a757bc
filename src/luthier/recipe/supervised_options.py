"""Options of methods that imitate plain text or a teacher, and what plain text asks of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from luthier.recipe.grader_options import Section

TEXT_CANDIDATES = ("prompt", "tuned")
TEXT_PROBES = ("forgetting", "own_text", "facts", "refusal")  # the others ask the run's own examples
# keys about requests and answers, with what they are when nobody asks for anything
_UNUSED: Mapping[str, Any] = {
    "system": None,
    "prompts": (),
    "tuned_system": None,
    "grader": None,
    "answer_schema": None,
    "constrain": "none",
    "max_new_tokens": None,
}


class CPTOptions(Section):
    """Continued pre-training."""

    kind: Literal["cpt"] = Field("cpt", description="Continues pre-training on plain text.")
    block: int = Field(
        1024, ge=16, description="Longest piece of a text in tokens; at most what the model can take."
    )


class DistillOptions(Section):
    """Distillation from a teacher."""

    kind: Literal["distill"] = Field("distill", description="Imitates a teacher, usually a larger model.")
    teacher: str = Field(description="The model to learn from: smollm2-135m, a local folder, or a hub id.")
    source: Literal["examples", "samples", "own"] = Field(
        "examples",
        alias="from",
        description="Where the texts come from on which it teaches: the examples' answers, answers that it "
        "samples itself (any tokenizer), or the model's own answers as it learns.",
    )
    temperature: float = Field(
        1.0, gt=0, le=10, description="Of the distributions that are compared, and of what is sampled."
    )

    @model_serializer(mode="wrap")
    def _by_key(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`from` is no name in Python, and `source` is none in a recipe."""
        return {"from" if key == "source" else key: value for key, value in handler(self).items()}


def fill_in(values: Any) -> Any:
    """A recipe's raw keys with what plain text and mixtures put in the place of absent ones."""
    if not isinstance(values, dict):
        return values
    if _is_mixture(values.get("data")):
        values = {"slices": ("task",)} | values
    method = values.get("method")
    if (method.get("kind") if isinstance(method, dict) else method) != "cpt":
        return values
    values = {"candidates": TEXT_CANDIDATES} | values
    train = values.get("train")
    if isinstance(train, dict) and train.get("patience") is not None:
        values["train"] = {"select": "loss"} | train  # nothing is answered, so nothing has a score
    return values


def _is_mixture(data: Any) -> bool:
    """Whether the examples come with tasks, the held-out ones too."""
    if isinstance(data, dict):
        return not isinstance(data.get("train"), str) and data.get("test") is None and bool(data.get("train"))
    return isinstance(data, list | tuple)


def refuse_answers(recipe: Any) -> None:
    """Refuse what a recipe says of requests and answers where its method learns plain text.

    Raises:
        ValueError: it says something.
    """
    others = [name for name in recipe.candidates if name not in TEXT_CANDIDATES]
    if others:
        raise ValueError(
            f"candidates: cpt measures how likely texts are, which {', '.join(others)} cannot answer: "
            f"write [{', '.join(TEXT_CANDIDATES)}], or leave the key out"
        )
    for key, value in _UNUSED.items():
        if getattr(recipe, key) != value:
            raise ValueError(f"{key} is about requests and answers, and cpt has neither: leave it out")
    if recipe.train.select == "score":
        raise ValueError("train.select: cpt has no answers to score: write `loss`, or leave it out")
    if recipe.stakes == "high":
        raise ValueError("stakes: high demands probes of answers and a review of them, and cpt has none")
    asking = [name for name in recipe.probes if name not in TEXT_PROBES]
    if asking:
        raise ValueError(
            f"probes: {', '.join(asking)} ask the run's examples, and cpt's are texts: "
            f"choose among {', '.join(TEXT_PROBES)}"
        )
