"""A small model trained from scratch on the same examples: linear, on word and character n-grams.

Labels get one classifier, JSON objects one per field, and free text the answer of the most
similar training example. It costs milliseconds: when it does as well, it is the one to use.
"""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_union

from luthier.candidates.answer import Answer
from luthier.examples.example import Example

MAX_CLASSES = 50
MIN_PER_CLASS = 2.0  # training examples per distinct value, on average, for a value to be learnable


def answer_from_scratch(examples: Sequence[Example], train: Sequence[Example], *, seed: int) -> list[Answer]:
    """Answers of a linear model trained on `train`.

    The confidence of a JSON answer is the product of its fields' class probabilities.
    """
    features = _features().fit([example.input for example in train])
    known = features.transform([example.input for example in train])
    started = time.perf_counter()
    asked = features.transform([example.input for example in examples])
    answers, confidences = _predict(known, [example.answer for example in train], asked, seed)
    seconds = (time.perf_counter() - started) / max(1, len(examples))
    return [
        Answer(example.id, None, answer, confidence, None, None, seconds)
        for example, answer, confidence in zip(examples, answers, confidences, strict=True)
    ]


def _features() -> FeatureUnion:
    return make_union(
        # single letters, digits and signs count too: "2 + 3" and "🙂" have no longer words
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=50_000),
    )


def _predict(
    known: csr_matrix, references: list[str], asked: csr_matrix, seed: int
) -> tuple[list[str], list[float | None]]:
    objects = [_object(reference) for reference in references]
    if all(value is not None for value in objects):
        return _predict_fields(known, [value for value in objects if value is not None], asked, seed)
    if _is_learnable(references):
        values, confidence = _classify(known, references, asked, seed)
        return values, list(confidence)
    nearest = np.asarray((asked @ known.T).argmax(axis=1)).ravel()
    return [references[i] for i in nearest], [None] * asked.shape[0]


def _predict_fields(
    known: csr_matrix, objects: list[dict[str, Any]], asked: csr_matrix, seed: int
) -> tuple[list[str], list[float | None]]:
    keys = list(dict.fromkeys(key for value in objects for key in value))
    predicted: list[dict[str, Any]] = [{} for _ in range(asked.shape[0])]
    confidence = np.ones(asked.shape[0])
    for key in keys:
        # as JSON text, so that null, numbers and lists are values like any other; None: key absent
        values = [json.dumps(value[key]) if key in value else "" for value in objects]
        if _is_learnable(values):
            chosen, sure = _classify(known, values, asked, seed)
        else:
            common, count = Counter(values).most_common(1)[0]
            chosen, sure = [common] * asked.shape[0], np.full(asked.shape[0], count / len(values))
        confidence = confidence * sure
        for row, text in zip(predicted, chosen, strict=True):
            if text:
                row[key] = json.loads(text)
    return [json.dumps(row, ensure_ascii=False) for row in predicted], [float(c) for c in confidence]


def _is_learnable(values: Sequence[str]) -> bool:
    distinct = len(set(values))
    return distinct <= MAX_CLASSES and len(values) >= MIN_PER_CLASS * distinct


def _classify(
    known: csr_matrix, values: Sequence[str], asked: csr_matrix, seed: int
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    if len(set(values)) == 1:
        return [values[0]] * asked.shape[0], np.ones(asked.shape[0])
    # one sparse solver per class: a quarter of the time of the multinomial fit at the same accuracy
    binary = LogisticRegression(C=20.0, solver="liblinear", random_state=seed, class_weight="balanced")
    model = OneVsRestClassifier(binary)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(known, np.asarray(values))
    chances = model.predict_proba(asked)
    best = chances.argmax(axis=1)
    return [str(model.classes_[i]) for i in best], chances[np.arange(len(best)), best]


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
