"""What is trained beside the examples, against forgetting: the base's own answers, or general examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.pipeline.models import Models
from luthier.pipeline.sources import hash_of, path_of
from luthier.progress import Show
from luthier.recipe import Recipe

if TYPE_CHECKING:
    from luthier.methods import Item


def replay_items(recipe: Recipe, models: Models, show: Show, *, beside: Sequence[Item]) -> list[Item]:
    """Items that take `train.replay` of the training tokens, with the base's distributions where asked for.

    Args:
        beside: the items of the examples.

    Raises:
        DataError: `train.replay_data` holds no example that can be trained on.
        ModelError: the model's distributions cannot be kept.
    """
    share = recipe.train.replay
    if not share:
        return []
    tokens = int(sum(item.tokens * item.repeats for item in beside) * share / (1 - share))
    items = (
        _own(models, show, tokens) if recipe.train.replay_data is None else _general(recipe, models, tokens)
    )
    items = [replace(item, beside=True) for item in items]
    return _taught(models, show, items) if recipe.train.replay_loss == "kl" else items


def replay_inputs(recipe: Recipe) -> dict[str, Any]:
    """What replay depends on besides the recipe's `train`."""
    file = recipe.train.replay_data
    return {} if file is None else {"replay_data": hash_of(file)}


def _own(models: Models, show: Show, tokens: int) -> list[Item]:
    from luthier.candidates.replay import base_replay

    with show.task("replay: base model's own answers", None) as advance:  # as many as fill the tokens
        return base_replay(models.base().model, models.chat, models.identity, tokens=tokens, advance=advance)


def _general(recipe: Recipe, models: Models, tokens: int) -> list[Item]:
    """Of the file's examples, in a fair order, as many as the tokens allow; too long ones are left out."""
    from luthier.examples import read_examples
    from luthier.methods import SFT

    file = recipe.train.replay_data
    assert file is not None
    limit = models.context_limit()
    found = [example for example in read_examples(path_of(file)).examples if example.wanted]
    random.Random(f"{recipe.seed}/replay").shuffle(found)
    items: list[Item] = []
    taken = 0
    for example in found:
        (item,) = SFT().items([example], models.chat, None)
        if limit is not None and max(len(sequence.ids) for sequence in item.sequences) > limit:
            continue
        if items and taken + item.tokens > tokens:
            break
        taken += item.tokens
        items.append(replace(item, where=f"replay {len(items) + 1}"))
    if not items:
        raise DataError(
            "no example for replay fits the model", where=file, fix="name a file with shorter ones"
        )
    return items


def _taught(models: Models, show: Show, items: Sequence[Item]) -> list[Item]:
    """The same tokens, where the base's distribution of each takes the token's place."""
    from luthier.forest import soft_targets

    sequences = [sequence for item in items for sequence in item.sequences]
    flags = [row for item in items for row in item.flags]
    with show.task("replay: base model's distributions", len(sequences)) as advance:
        ids = [sequence.ids for sequence in sequences]
        taught = iter(soft_targets(models.base().model, ids, flags, advance=advance))
    return [replace(item, soft=tuple(next(taught) for _ in item.sequences)) for item in items]
