"""What the result of a stage depends on: the keys of the recipe that it reads, and the files behind them."""

from __future__ import annotations

from typing import Any

from luthier.pipeline.choosing import chooses
from luthier.pipeline.constraining import constraint_inputs
from luthier.pipeline.mixing import mixing_inputs
from luthier.pipeline.models import Models
from luthier.pipeline.replaying import replay_inputs
from luthier.pipeline.scoring import file_hash, grader_inputs, reward_inputs
from luthier.pipeline.sources import Sources
from luthier.pipeline.teaching import teaching_inputs
from luthier.recipe import Recipe
from luthier.recipe.grader_options import grader_kind
from luthier.record import Record


def asked(recipe: Recipe, *keys: str) -> dict[str, Any]:
    """Keys of the recipe, as plain values."""
    return recipe.model_dump(include=set(keys))


def split_inputs(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    """Of the split: the files of examples, and how they are divided."""
    return {"data": sources.hashes, **sources.options, **asked(recipe, "seed", "split")}


def tuned_system(recipe: Recipe) -> dict[str, Any]:
    """What tuned is told, and whether the examples' own system prompts count beside it."""
    return {"system": recipe.system_of("tuned"), "own_system": recipe.tuned_system is None}


def systems(recipe: Recipe) -> list[Any]:
    """What both sides of a probe are told."""
    return [recipe.system, *tuned_system(recipe).values()]


def training_inputs(record: Record, recipe: Recipe, models: Models) -> dict[str, Any]:
    """Of a training, once the examples are split."""
    inputs = {
        "split": record.output_hash("split"),
        "model": models.identity,
        **tuned_system(recipe),
        **asked(recipe, "method", "adapter", "train", "seed"),
        **(asked(recipe, "canaries") if recipe.canaries else {}),
        **replay_inputs(recipe),
        **teaching_inputs(recipe),
        **mixing_inputs(recipe),
    }
    if recipe.selects_by_score:
        inputs |= {
            **grader_inputs(recipe),
            **reward_inputs(recipe),
            **asked(recipe, "max_new_tokens"),
            **constraint_inputs(recipe),
        }
    return inputs


def answer_inputs(record: Record, recipe: Recipe, models: Models, name: str) -> dict[str, Any]:
    """Of a candidate's answers, without what was searched or trained for them."""
    inputs = {
        "split": record.output_hash("split"),
        "model": models.identity,
        **asked(recipe, "seed"),
    }
    if chooses(recipe, name):
        inputs |= asked(recipe, "method")
    if name != "scratch":
        inputs |= {**asked(recipe, "max_new_tokens"), **constraint_inputs(recipe)}
        inputs |= tuned_system(recipe) if name == "tuned" else asked(recipe, "system")
    else:
        inputs |= {**grader_inputs(recipe), **asked(recipe, "scratch")}
        if grader_kind(recipe.grader) in (None, "text_similarity"):
            inputs |= asked(recipe, "max_new_tokens")  # the decoder's room
    if recipe.reads_texts:
        inputs |= asked(recipe, "method", "adapter")  # how texts are cut
    if name in ("few_shot", "retrieval"):
        inputs |= asked(recipe, "shots")
    if name == "retrieval":
        inputs |= {"documents": file_hash(recipe.documents), **asked(recipe, "retrieval")}
    return inputs
