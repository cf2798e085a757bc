"""Options of methods that imitate plain text or a teacher."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from luthier.recipe.grader_options import Section


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
