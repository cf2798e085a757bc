"""Real texts of the public suites, in two halves: one to tune checks on, one looked at only at the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from luthier.assets import suite_file

Half = Literal["tuning", "held-out"]
HALVES: tuple[Half, ...] = ("tuning", "held-out")
NATURAL = 0.4  # pairs of real texts from here on may mean the same: one of them is left out


@dataclass(frozen=True)
class TextSet:
    """A file of the suites asset and the columns that make up a text."""

    name: str
    half: Half
    file: str
    columns: tuple[str, ...]


TEXT_SETS = (
    TextSet("search questions", "tuning", "NQ-open/test.jsonl", ("question",)),
    TextSet("health questions", "tuning", "healthsearchqa/test.jsonl", ("question",)),
    TextSet("sums in words", "tuning", "ASDiv/test.jsonl", ("passage", "question")),
    TextSet("money questions", "tuning", "Fiqa/test.jsonl", ("question",)),
    TextSet("yes or no questions", "tuning", "BoolQ/dev.jsonl", ("question",)),
    TextSet("news", "tuning", "XSum/test.jsonl", ("summary",)),
    TextSet("common sense", "held-out", "CommonsenseQA/validation.jsonl", ("question",)),
    TextSet("social situations", "held-out", "SIQA/test.jsonl", ("passage", "question")),
    TextSet("exam questions", "held-out", "MMLU/test.jsonl", ("question",)),
    TextSet("privacy clauses", "held-out", "Privacy-Policy/test.jsonl", ("context",)),
    TextSet("medicine questions", "held-out", "MedicationQA/test.jsonl", ("Question",)),
    TextSet("everyday sentences", "held-out", "Translation/test.jsonl", ("sourceString",)),
)


def text_sets(half: Half) -> list[TextSet]:
    """The sets of one half."""
    return [given for given in TEXT_SETS if given.half == half]


def read_texts(given: TextSet, limit: int, *, longest: int = 1200) -> list[str]:
    """Distinct texts of a set from its beginning, without those over `longest` characters."""
    found: dict[str, None] = {}
    for row in read_suite(given.file):
        values = [row.get(column) for column in given.columns]
        text = " ".join(value.strip() for value in values if isinstance(value, str))
        if len(text.split()) >= 3 and len(text) <= longest:
            found.setdefault(text)
        if len(found) == limit:
            break
    return list(found)


def read_suite(file: str) -> Iterator[dict[str, Any]]:
    """Rows of a file of the suites asset; a JSON line that cannot be read is left out.

    Raises:
        AssetError: the suites cannot be fetched.
    """
    path = suite_file(file)
    with path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".csv":
            yield from csv.DictReader(lines)
            return
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def without_natural_pairs(texts: list[str]) -> tuple[list[str], int]:
    """Texts of which no two are alike, and how many were left out for that.

    All pairs are compared, by code that shares nothing with the check: Jaccard similarity of the sets of
    words, and of the sets of 5 letters in a row; the larger of the two counts.
    """
    like = np.maximum(similarities(texts, "word"), similarities(texts, "letters"))
    kept: list[int] = []
    for place in range(len(texts)):
        if not kept or like[place, kept].max() < NATURAL:
            kept.append(place)
    return [texts[place] for place in kept], len(texts) - len(kept)


def similarities(texts: list[str], of: Literal["word", "letters"]) -> np.ndarray:
    """Jaccard similarity of every pair of texts `[N, N]`."""
    if of == "word":
        counter = CountVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    else:
        counter = CountVectorizer(binary=True, analyzer="char_wb", ngram_range=(5, 5), dtype=np.float32)
    rows = counter.fit_transform(texts)
    shared = (rows @ rows.T).toarray()
    sizes = shared.diagonal()
    return np.asarray(shared / np.maximum(1.0, sizes[:, None] + sizes[None, :] - shared))
