"""The recipe's `method`: a name, or a mapping with the options that methods of its kind have.

Names of options are TRL's where TRL has them.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from luthier.recipe.grader_options import Section

LossType = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"]
MethodName = Literal["sft", "dpo", "orpo", "simpo"]


class DPOOptions(Section):
    """Direct preference optimization, and its variants."""

    kind: Literal["dpo"] = Field("dpo", description="Chosen above rejected, held near the base model.")
    beta: float = Field(0.1, gt=0, description="How strongly it is held near the base; for ipo, its tau.")
    loss_type: LossType = Field(
        "sigmoid",
        description="sigmoid (DPO), sigmoid_norm (per token), ipo (a fixed gap), hinge (SLiC).",
    )
    label_smoothing: float = Field(
        0.0, ge=0, le=0.5, description="Share of pairs that may be the wrong way round."
    )
    reference_free: bool = Field(False, description="Take a uniform reference instead of the base model.")

    @model_validator(mode="after")
    def _fits_together(self) -> DPOOptions:
        if self.label_smoothing and self.loss_type in ("ipo", "hinge"):
            raise ValueError(f"label_smoothing is not defined for loss_type {self.loss_type}: leave it out")
        return self


class ORPOOptions(Section):
    """Odds-ratio preference optimization."""

    kind: Literal["orpo"] = Field("orpo", description="Imitates the chosen and raises its odds.")
    beta: float = Field(0.1, gt=0, description="Weight of the odds ratio (the paper's lambda).")


class SimPOOptions(Section):
    """Simple preference optimization."""

    kind: Literal["simpo"] = Field("simpo", description="Chosen above rejected per token; no reference.")
    beta: float = Field(2.0, gt=0, description="Scale of the mean log-probabilities.")
    gamma: float = Field(1.0, ge=0, description="Margin between the two (TRL: simpo_gamma).")


METHOD_SECTIONS: dict[str, type[Section]] = {"dpo": DPOOptions, "orpo": ORPOOptions, "simpo": SimPOOptions}
MethodOptions = DPOOptions | ORPOOptions | SimPOOptions


def method_name(method: str | MethodOptions) -> str:
    """`sft`, `dpo`, ..."""
    return method if isinstance(method, str) else method.kind


def _spell_out(value: Any) -> Any:
    """A name becomes its section, with every default; `sft` has no options."""
    if isinstance(value, Section):
        return value
    if not isinstance(value, str) and not (isinstance(value, dict) and "kind" in value):
        raise ValueError("expected a name, or a mapping such as {kind: dpo, beta: 0.1}")
    name = value["kind"] if isinstance(value, dict) else value
    known = ("sft", *METHOD_SECTIONS)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown method {name!r}{hint} Expected one of {', '.join(known)}")
    if name == "sft":
        if isinstance(value, dict) and len(value) > 1:
            raise ValueError("sft has no options: write `method: sft`")
        return "sft"
    return value if isinstance(value, dict) else {"kind": value}


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", value)
    return str(kind)


MethodChoice = Annotated[
    Annotated[Literal["sft"], Tag("sft")]
    | Annotated[DPOOptions, Tag("dpo")]
    | Annotated[ORPOOptions, Tag("orpo")]
    | Annotated[SimPOOptions, Tag("simpo")],
    Discriminator(_tag),
    BeforeValidator(_spell_out, json_schema_input_type=MethodName | MethodOptions),
]
