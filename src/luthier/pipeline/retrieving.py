"""What the retrieval candidate may show: training examples and the user's documents, searchable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from luthier.examples import Split
from luthier.pipeline.models import Models
from luthier.progress import Show
from luthier.recipe import Recipe

if TYPE_CHECKING:
    from luthier.candidates import Nearby
    from luthier.candidates.documents import Passage
    from luthier.candidates.embedding import Embed


def build_nearby(recipe: Recipe, models: Models, show: Show, split: Split) -> Nearby:
    """Training examples, and passages of the documents that hold no held-out request.

    Raises:
        DataError: there are no documents where the recipe names them, or none is left.
        ModelError: the embedder cannot be loaded.
    """
    from luthier.candidates import Nearby
    from luthier.candidates.documents import cut_passages, read_documents

    how = recipe.retrieval
    passages: list[Passage] = []
    left_out = 0
    if recipe.documents is not None:
        held_out = [example.input for example in (*split.validation, *split.test)]
        documents = read_documents(Path(recipe.documents))
        passages, left_out = cut_passages(documents, held_out, words=how.words)
    if left_out:
        total = len(passages) + left_out
        show.note(f"{left_out} of {total} passages hold a held-out request and are not shown")
    embed = None if how.by == "bm25" else _embedder(recipe, models)
    return Nearby(split.train, passages, shown_passages=how.passages, by=how.by, embed=embed)


def _embedder(recipe: Recipe, models: Models) -> Embed:
    from luthier.candidates.embedding import base_embedder, sentence_embedder

    if recipe.retrieval.embedder is not None:
        return sentence_embedder(recipe.retrieval.embedder)
    return base_embedder(models.base().model, models.tokenizer)
