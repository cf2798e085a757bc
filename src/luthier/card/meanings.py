"""What candidates are, in a few words, which depends on the method of the run; why a run has no probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.recipe.method_defaults import COMPARED

MEANINGS = {
    "prompt": "the base model with the system prompt",
    "few_shot": "the base model with fixed examples in the prompt",
    "retrieval": "the base model with the nearest examples in the prompt",
    "scratch": "a small specialised model trained from scratch",
    "tuned": "the base model, fine-tuned",
}
UNTUNED = "the base model as it is"
# what the base is, where it is not asked to write
BASES = {"cpt": UNTUNED, "reward": f"{UNTUNED}: of the answers, the one that it finds likelier"}


def method_of(recipe: Mapping[str, Any]) -> str:
    """What a recipe trains by: `sft`, `dpo`, ..."""
    method = recipe.get("method")
    return str((method.get("kind") if isinstance(method, Mapping) else method) or "sft")


def meaning_of(name: str, recipe: Mapping[str, Any]) -> str:
    """What a candidate is; empty for a name that Luthier does not know."""
    if name == "prompt" and method_of(recipe) in BASES:
        return BASES[method_of(recipe)]
    plain = name == "prompt" and "system" in recipe and not recipe["system"]
    return UNTUNED if plain else MEANINGS.get(name, "")


def why_unprobed(method: str) -> str:
    """Why nothing is known of what tuning cost, where there is no probe."""
    if method in COMPARED:
        return f"probes ask a model that writes, and what method {method} makes does not"
    return "no probe was run, so nothing is known about what the model lost"
