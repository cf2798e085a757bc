"""How much is at stake, what a confidence is made of, and when a request is handed to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from luthier.recipe.grader_options import Section
from luthier.recipe.probe_options import ALL, PROBE_NAMES

SURER = 0.95  # how sure high stakes want to be of the promised risk, where the recipe does not say

Stakes = Annotated[
    Literal["normal", "high"],
    Field(
        description="high demands more of `ship`: every probe, a test side with the power to show the gain, "
        "a guaranteed threshold for abstaining, no slice worse, and answers that a person has read."
    ),
]


class Abstain(Section):
    """When a request is handed to a person: a confidence threshold with a guarantee."""

    risk: float = Field(0.05, gt=0, lt=1, description="Largest share of the given answers that is wrong.")
    confidence: float = Field(
        0.9, gt=0.5, lt=1, description="How sure one is of that; 0.95 when absent with high stakes."
    )


class Confidence(Section):
    """What the confidence of tuned's answers is, for calibration, abstention and export."""

    kind: Literal["logprob", "agreement"] = Field(
        "logprob",
        description="logprob: the probability of the whole answer. agreement: the share of sampled answers "
        "that are the same as the greedy one; it costs as many answers more per request.",
    )
    samples: int = Field(5, ge=2, le=64, description="Answers that agreement samples for each request.")
    temperature: float = Field(0.7, gt=0, le=2, description="Temperature that agreement samples at.")


def _by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


ConfidenceChoice = Annotated[
    Confidence,
    BeforeValidator(_by_name, json_schema_input_type=Literal["logprob", "agreement"] | Confidence),
    Field(description="What tuned's confidence is: a name, or {kind: ..., its options}."),
]


def demand_more(values: Any) -> Any:
    """A recipe's raw keys with what high stakes put in the place of absent ones."""
    if not isinstance(values, dict) or values.get("stakes") != "high":
        return values
    abstain = values.get("abstain", {})
    if isinstance(abstain, dict):
        abstain = {"confidence": SURER} | abstain
    return {"probes": ALL} | values | {"abstain": abstain}


def refuse_gaps(stakes: str, probes: Sequence[str]) -> None:
    """Refuse a list of probes that high stakes would leave undecided after hours of work.

    Raises:
        ValueError: the stakes are high, and a probe is left out.
    """
    left_out = [name for name in PROBE_NAMES if name not in probes]
    if stakes == "high" and left_out:
        raise ValueError(
            f"stakes: high asks for every probe, and `probes` leaves out {', '.join(left_out)}: "
            "write `probes: all`, or leave the key out"
        )
