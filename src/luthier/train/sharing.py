"""Which items of a training a model computes as a forest, and which it computes row by row."""

from __future__ import annotations

import torch

from luthier.forest.attention import Unsupported
from luthier.forest.logprobs import Model, can_share
from luthier.forest.root import root_of
from luthier.forest.sharing import refuse_unequal_rows
from luthier.methods.method import Item
from luthier.models.encoder import is_encoder
from luthier.train.batches import Shares


def sharing_of(model: Model) -> Shares:
    """Whether `forest.logprobs` shares an item's prefixes: counts and budgets must be of what it computes.

    It decides by the architecture, and by the lengths where a position encoding depends on the longest row.
    """
    able = not is_encoder(model) and can_share(model)
    with torch.no_grad():
        root = root_of(model)

    def shares(item: Item) -> bool:
        if not able:
            return False
        try:
            refuse_unequal_rows(model, [sequence.ids for sequence in item.sequences], root)
        except Unsupported:
            return False
        return True

    return shares
