"""What a recipe is by default, and cannot be, because of what its method learns from and makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from luthier.recipe.method_options import method_name

if TYPE_CHECKING:
    from luthier.recipe.recipe import Recipe

# methods whose model does not write: what may be compared with it, and why nothing else can
COMPARED: dict[str, tuple[str, ...]] = {
    "reward": ("prompt", "scratch", "tuned"),
    "classify": ("prompt", "few_shot", "retrieval", "scratch", "tuned"),
}
TEXT_CANDIDATES = ("prompt", "tuned")  # of a method that learns plain text
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


def fit_method(values: Any) -> Any:
    """A recipe's raw keys with what its method, and data of several tasks, put in the place of absent ones.

    A model that does not write has no answers to replay, and probes of its writing say nothing of it. The
    loss of a head says more than how often it is right, also to `train.patience`. Of plain text nothing is
    answered, so nothing has a score.
    """
    if not isinstance(values, dict):
        return values
    if _is_mixture(values.get("data")):
        values = {"slices": ("task",)} | values
    kind = _kind(values)
    train = values.get("train", {})
    if kind == "cpt":
        values = {"candidates": TEXT_CANDIDATES} | values
        if isinstance(train, dict) and train.get("patience") is not None:
            values["train"] = {"select": "loss"} | train
    elif kind in COMPARED:
        grader = {"grader": "string_check"} if kind == "reward" else {}
        values = {"candidates": COMPARED[kind], "probes": (), **grader} | values
        if isinstance(train, dict):
            values["train"] = {"replay": 0.0, "select": "loss"} | train
    return values


def refuse_misfits(recipe: Recipe) -> None:
    """Refuse what the model that a method makes cannot be asked.

    Raises:
        ValueError: the recipe asks for it.
    """
    if recipe.reads_texts:
        _refuse_answers(recipe)
    elif (kind := method_name(recipe.method)) in COMPARED:
        _refuse_writing(recipe, kind)


def _refuse_writing(recipe: Recipe, kind: str) -> None:
    misfits = [name for name in recipe.candidates if name not in COMPARED[kind]]
    if misfits:
        allowed = ", ".join(COMPARED[kind])
        raise ValueError(
            f"candidates: {', '.join(misfits)} cannot be compared with what method {kind} makes; "
            f"use some of {allowed}"
        )
    if recipe.stakes == "high":
        raise ValueError(
            f"stakes: high asks for every probe, and probes ask a model that writes: method {kind} makes "
            "none. Use `stakes: normal`"
        )
    if recipe.confidence.kind == "agreement":
        raise ValueError(
            f"confidence: agreement samples answers, and what method {kind} makes writes none: leave it out"
        )
    if recipe.probes:
        raise ValueError(f"probes ask a model that writes, and method {kind} makes none: leave them out")
    if recipe.train.replay or recipe.canaries:
        key = "train.replay" if recipe.train.replay else "canaries"
        raise ValueError(f"{key} trains on texts, which method {kind} cannot: leave it out")


def _refuse_answers(recipe: Recipe) -> None:
    """What a recipe says of requests and answers where its method learns plain text."""
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


def _is_mixture(data: Any) -> bool:
    """Whether the examples come with tasks, the held-out ones too."""
    if isinstance(data, dict):
        return not isinstance(data.get("train"), str) and data.get("test") is None and bool(data.get("train"))
    return isinstance(data, list | tuple)


def _kind(values: Mapping[str, Any]) -> str:
    method = values.get("method")
    kind = method.get("kind") if isinstance(method, dict) else method
    return kind if isinstance(kind, str) else getattr(kind, "kind", "")
