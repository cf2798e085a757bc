"""The recipe's `method`: a name, or a mapping with the options that methods of its kind have.

Names of options are TRL's where TRL has them.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from luthier.recipe.grader_options import Section
from luthier.recipe.supervised_options import CPTOptions, DistillOptions

LossType = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"]
GroupLoss = Literal["dapo", "grpo", "dr_grpo"]
RewardScale = Literal["group", "batch", "none"]
ONLINE = ("grpo", "rloo", "ppo", "best_of")  # learn from the model's own answers
MethodName = Literal[
    "sft",
    "cpt",
    "distill",
    "dpo",
    "kto",
    "orpo",
    "simpo",
    "grpo",
    "rloo",
    "ppo",
    "best_of",
    "reward",
    "classify",
]


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


class KTOOptions(Section):
    """Kahneman-Tversky optimization."""

    kind: Literal["kto"] = Field("kto", description="From answers that are judged good or bad one by one.")
    beta: float = Field(0.1, gt=0, description="How strongly it is held near the base.")
    desirable_weight: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="Weight of a good answer; auto: both kinds weigh the same in all."
    )
    undesirable_weight: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="Weight of a bad answer."
    )


class ORPOOptions(Section):
    """Odds-ratio preference optimization."""

    kind: Literal["orpo"] = Field("orpo", description="Imitates the chosen and raises its odds.")
    beta: float = Field(0.1, gt=0, description="Weight of the odds ratio (the paper's lambda).")


class SimPOOptions(Section):
    """Simple preference optimization."""

    kind: Literal["simpo"] = Field("simpo", description="Chosen above rejected per token; no reference.")
    beta: float = Field(2.0, gt=0, description="Scale of the mean log-probabilities.")
    gamma: float = Field(1.0, ge=0, description="Margin between the two (TRL: simpo_gamma).")


class _OnlineOptions(Section):
    """What all methods have that learn from the model's own answers."""

    samples: int = Field(8, ge=2, le=1024, description="Answers to each prompt (TRL: num_generations).")
    temperature: float = Field(
        1.0, gt=0, le=10, description="At which they are sampled; at 1 they are the model's own."
    )
    epochs: int = Field(
        1, ge=1, le=100, description="Passes over the answers of a step (TRL: num_iterations)."
    )
    minibatches: int = Field(
        1, ge=1, le=1024, description="Updates in a pass (TRL: num_mini_batches, steps_per_generation)."
    )


class GRPOOptions(_OnlineOptions):
    """Group relative policy optimization, and its unbiased forms."""

    kind: Literal["grpo"] = Field("grpo", description="Own answers against the others to their prompt.")
    beta: float = Field(0.04, ge=0, description="Weight of the KL divergence from the base; 0: none.")
    loss_type: GroupLoss = Field(
        "dapo",
        description="How tokens are averaged: dapo (all alike), grpo (by answer), dr_grpo (by a constant).",
    )
    scale_rewards: RewardScale = Field(
        "group", description="Divide advantages by the spread of rewards in the group, in the batch, or none."
    )
    epsilon: float = Field(0.2, gt=0, lt=1, description="How far a ratio may fall before it is clipped.")
    epsilon_high: float | None = Field(
        None, gt=0, description="How far it may rise; as epsilon when null. DAPO: 0.28."
    )
    use_bias_correction_kl: bool = Field(
        True, description="Weight the KL term so that its gradient is that of the KL divergence."
    )
    mask_truncated: bool = Field(
        False,
        description="Leave out answers that the limit cut off (TRL: mask_truncated_completions).",
    )
    max_completion_length: int = Field(
        256, ge=1, description="The constant of dr_grpo, in tokens: best the limit of an answer."
    )


class RLOOOptions(_OnlineOptions):
    """REINFORCE with a leave-one-out baseline."""

    kind: Literal["rloo"] = Field("rloo", description="Own answers against the mean of the others.")
    samples: int = Field(4, ge=2, le=1024, description="Answers to each prompt (TRL: num_generations).")
    beta: float = Field(0.05, ge=0, description="Weight of the KL divergence in the reward; 0: none.")
    epsilon: float = Field(0.2, gt=0, lt=1, description="How far an answer's ratio may fall before clipping.")
    epsilon_high: float | None = Field(None, gt=0, description="How far it may rise; as epsilon when null.")


class PPOOptions(_OnlineOptions):
    """Proximal policy optimization with a value head."""

    kind: Literal["ppo"] = Field("ppo", description="Own answers against what a value head expected.")
    samples: int = Field(4, ge=1, le=1024, description="Answers to each prompt.")
    kl_coef: float = Field(0.05, ge=0, description="Weight of the KL divergence in the rewards; 0: none.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of what comes a token later.")
    lam: float = Field(0.95, ge=0, le=1, description="GAE: 0 trusts the value head, 1 what really came.")
    cliprange: float = Field(0.2, gt=0, lt=1, description="How far a ratio may move before it is clipped.")
    cliprange_value: float = Field(0.2, gt=0, description="How far a value may move before it is clipped.")
    vf_coef: float = Field(0.1, ge=0, description="Weight of the value loss.")
    whiten_rewards: bool = Field(False, description="Divide the rewards of a step by their spread.")
    missing_eos_penalty: float = Field(
        0.0, ge=0, description="Taken off the reward of an answer that the limit cut off."
    )
    epochs: int = Field(4, ge=1, le=100, description="Passes over a step's answers (TRL: num_ppo_epochs).")


class BestOfOptions(_OnlineOptions):
    """Expert iteration: best of n, then imitation."""

    kind: Literal["best_of"] = Field("best_of", description="Imitates the best of its own answers.")
    threshold: float | None = Field(
        None, description="Least reward that is imitated; when null, above the mean of the prompt's answers."
    )


class RewardOptions(Section):
    """A reward model."""

    kind: Literal["reward"] = Field("reward", description="A number for an answer, higher for better ones.")
    margin: str | None = Field(
        None, min_length=1, description="Column with how much worse each rejected answer is; none: unknown."
    )
    center_coefficient: float = Field(
        0.0, ge=0, description="Keeps rewards near 0, say 0.01 (TRL: center_rewards_coefficient)."
    )


class ClassifyOptions(Section):
    """A classification head."""

    kind: Literal["classify"] = Field("classify", description="One of the training answers, as a label.")
    class_weights: Literal["equal", "balanced"] = Field(
        "equal", description="equal: every example counts the same; balanced: every label does."
    )


METHOD_SECTIONS: dict[str, type[Section]] = {
    "cpt": CPTOptions,
    "distill": DistillOptions,
    "dpo": DPOOptions,
    "kto": KTOOptions,
    "orpo": ORPOOptions,
    "simpo": SimPOOptions,
    "grpo": GRPOOptions,
    "rloo": RLOOOptions,
    "ppo": PPOOptions,
    "best_of": BestOfOptions,
    "reward": RewardOptions,
    "classify": ClassifyOptions,
}
MethodOptions = (
    CPTOptions
    | DistillOptions
    | DPOOptions
    | KTOOptions
    | ORPOOptions
    | SimPOOptions
    | GRPOOptions
    | RLOOOptions
    | PPOOptions
    | BestOfOptions
    | RewardOptions
    | ClassifyOptions
)


def method_name(method: str | MethodOptions) -> str:
    """`sft`, `dpo`, ..."""
    return method if isinstance(method, str) else method.kind


def writes_own(method: str | MethodOptions) -> bool:
    """Whether a method learns from answers that the model writes while it is trained."""
    return method_name(method) in ONLINE or (isinstance(method, DistillOptions) and method.source == "own")


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
    | Annotated[CPTOptions, Tag("cpt")]
    | Annotated[DistillOptions, Tag("distill")]
    | Annotated[DPOOptions, Tag("dpo")]
    | Annotated[KTOOptions, Tag("kto")]
    | Annotated[ORPOOptions, Tag("orpo")]
    | Annotated[SimPOOptions, Tag("simpo")]
    | Annotated[GRPOOptions, Tag("grpo")]
    | Annotated[RLOOOptions, Tag("rloo")]
    | Annotated[PPOOptions, Tag("ppo")]
    | Annotated[BestOfOptions, Tag("best_of")]
    | Annotated[RewardOptions, Tag("reward")]
    | Annotated[ClassifyOptions, Tag("classify")],
    Discriminator(_tag),
    BeforeValidator(_spell_out, json_schema_input_type=MethodName | MethodOptions),
]
