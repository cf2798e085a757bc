"""Which texts are nearest to a request: by the words they share (BM25), by their vectors, or by both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import bm25s
import numpy as np

from luthier.candidates.embedding import Embed

By = Literal["bm25", "embeddings", "both"]
FUSION = 60  # reciprocal rank fusion (Cormack, Clarke and Buettcher 2009), with their constant


class Index:
    """Texts that can be searched.

    Args:
        texts: N of them.
        embed: gives vectors; needed unless `by` is bm25.
    """

    def __init__(self, texts: Sequence[str], *, by: By = "bm25", embed: Embed | None = None) -> None:
        assert by == "bm25" or embed is not None
        self._count = len(texts)
        self._words = None if by == "embeddings" else _Words(texts)
        self._vectors = None if by == "bm25" or embed is None else _Vectors(texts, embed)

    def nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        """For each query the places of the `count` nearest texts, the nearest first; of equals the first."""
        found = []
        scored = [part.scores(queries) for part in (self._words, self._vectors) if part is not None]
        for rows in zip(*scored, strict=True):
            scores = rows[0] if len(rows) == 1 else sum(1 / (FUSION + _ranks(row)) for row in rows)
            order = np.lexsort((np.arange(self._count), -np.asarray(scores)))
            found.append([int(i) for i in order[:count]])
        return found


def _ranks(scores: np.ndarray) -> np.ndarray:
    """1 for the highest score; equal ones share the better rank."""
    ordered = np.sort(-scores)
    return 1 + np.searchsorted(ordered, -scores, side="left")


class _Words:
    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        corpus = split_words(texts)
        self._index = None
        if any(corpus):  # BM25 is undefined for texts without a single word
            self._index = bm25s.BM25()
            self._index.index(corpus, show_progress=False)

    def scores(self, queries: Sequence[str]) -> list[np.ndarray]:
        nothing = np.zeros(self._count)
        return [
            self._index.get_scores(words) if words and self._index is not None else nothing
            for words in split_words(queries)
        ]


class _Vectors:
    """Cosines after the texts' mean is taken away: hidden states point mostly one way (anisotropy)."""

    def __init__(self, texts: Sequence[str], embed: Embed) -> None:
        self._embed = embed
        found = embed(texts)
        self._mean = found.mean(axis=0) if len(texts) > 1 else np.zeros(found.shape[1], dtype=found.dtype)
        self._texts = _unit(found - self._mean)

    def scores(self, queries: Sequence[str]) -> list[np.ndarray]:
        return list(_unit(self._embed(queries) - self._mean) @ self._texts.T)


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def split_words(texts: Sequence[str]) -> list[list[str]]:
    """Words as BM25 counts them, without the commonest English ones."""
    tokens = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return [list(words) for words in tokens]
