"""A mixture of tasks: whose examples carry their task, and how often training sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.examples import Example
from luthier.recipe import Recipe

if TYPE_CHECKING:
    from luthier.methods import Item

TASK = "task"  # the field that says which task an example is of


def mixing_inputs(recipe: Recipe) -> dict[str, Any]:
    """What training depends on besides the examples and their tasks."""
    return {"weights": _weights(recipe)} if recipe.data.tasks else {}


def name_task(examples: Iterable[Example], task: str, taken: set[str]) -> list[Example]:
    """The examples of one file of a mixture, with their task as a field.

    Args:
        taken: ids of the tasks before, to which these are added: an example that is in two tasks gets an id
            of its own in the second.

    Raises:
        DataError: they have a field of that name already.
    """
    named = []
    for example in examples:
        if TASK in example.fields:
            raise DataError(
                f"the rows of a mixture have a column {TASK!r} already",
                where=example.where,
                fix="rename or remove it: the task is what the recipe calls the file",
            )
        own = example.id if example.id not in taken else f"{example.id}-{task}"
        named.append(replace(example, id=own, fields={**example.fields, TASK: task}))
    taken.update(example.id for example in named)
    return named


def repeat_items(recipe: Recipe, examples: Sequence[Example], items: Sequence[Item]) -> list[Item]:
    """The items, each to be seen as often in an epoch as its task's weight says.

    Args:
        examples: from which the items were made.
    """
    weights = _weights(recipe)
    if not weights:
        return list(items)
    repeats = {e.where: weights[task] for e in examples if (task := e.fields.get(TASK)) in weights}
    return [replace(item, repeats=repeats.get(item.where, 1.0)) for item in items]


def _weights(recipe: Recipe) -> dict[Any, float]:
    return {task.task: task.weight for task in recipe.data.tasks}
