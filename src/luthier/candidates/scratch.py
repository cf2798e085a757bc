"""A small model trained from scratch on the same examples: linear, on n-grams or on a base model's vectors.

On word and character n-grams labels get one classifier, JSON objects one per field, and free text the answer
of the most similar training example. It costs milliseconds: when it does as well, it is the one to use.
A linear probe is the same classifier on the base model's mean-pooled hidden states, which stay as they are.
"""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_union
from sklearn.preprocessing import StandardScaler

from luthier.candidates.answer import Answer
from luthier.candidates.embedding import Embed
from luthier.examples.example import Example

Predicted = tuple[list[str], list[float | None]]
Matrix: TypeAlias = "csr_matrix | np.ndarray"
Predict = Callable[[Matrix], Predicted]
NGRAM_STRENGTH = 20.0  # inverse of the regularization: sparse unit rows need little of it,
PROBE_STRENGTH = 0.1  # hundreds of scaled dimensions much
MAX_CLASSES = 50
MIN_PER_CLASS = 2.0  # training examples per distinct value, on average, for a value to be learnable


class Scratch:
    """Trained when it is made.

    Args:
        embed: vectors of texts, for a linear probe; n-grams when absent.
    """

    def __init__(self, train: Sequence[Example], *, seed: int, embed: Embed | None = None) -> None:
        self._features: Features = _ngrams() if embed is None else _Vectors(embed)
        known = self._features.fit_transform([example.input for example in train])
        strength = NGRAM_STRENGTH if embed is None else PROBE_STRENGTH
        self._predict = _fit(known, [example.answer for example in train], seed, strength)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        """Answers; `seconds` count answering, not training.

        The confidence of a JSON answer is the product of its fields' class probabilities.
        """
        started = time.perf_counter()
        asked = self._features.transform([example.input for example in examples])
        answers, confidences = self._predict(asked)
        seconds = (time.perf_counter() - started) / max(1, len(examples))
        return [
            Answer(example.id, None, answer, confidence, None, None, seconds)
            for example, answer, confidence in zip(examples, answers, confidences, strict=True)
        ]


def answer_from_scratch(examples: Sequence[Example], train: Sequence[Example], *, seed: int) -> list[Answer]:
    """Answers of a linear model on n-grams trained on `train`."""
    return Scratch(train, seed=seed).answer(examples)


def is_classification(answers: Sequence[str]) -> bool:
    """Whether answers are labels that repeat often enough to be learned, and no JSON objects."""
    return _is_learnable(answers) and not all(_object(answer) is not None for answer in answers)


class Features(Protocol):
    """Texts to a matrix with a row for each."""

    def fit_transform(self, texts: Sequence[str]) -> Matrix: ...

    def transform(self, texts: Sequence[str]) -> Matrix: ...


class _Vectors:
    """Vectors of texts, every dimension scaled by its mean and spread over the training texts."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._scaler = StandardScaler()

    def fit_transform(self, texts: Sequence[str]) -> Matrix:
        found: Matrix = self._scaler.fit_transform(self._embed(texts))
        return found

    def transform(self, texts: Sequence[str]) -> Matrix:
        found: Matrix = self._scaler.transform(self._embed(texts))
        return found


def _ngrams() -> FeatureUnion:
    return make_union(
        # single letters, digits and signs count too: "2 + 3" and "🙂" have no longer words
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=50_000),
    )


def _fit(known: Matrix, references: list[str], seed: int, strength: float) -> Predict:
    objects = [_object(reference) for reference in references]
    if all(value is not None for value in objects):
        return _fit_fields(known, [value for value in objects if value is not None], seed, strength)
    if _is_learnable(references):
        return _fit_classes(known, references, seed, strength)

    def nearest(asked: Matrix) -> Predicted:
        found = np.asarray((asked @ known.T).argmax(axis=1)).ravel()
        return [references[i] for i in found], [None] * asked.shape[0]

    return nearest


def _fit_fields(known: Matrix, objects: list[dict[str, Any]], seed: int, strength: float) -> Predict:
    keys = list(dict.fromkeys(key for value in objects for key in value))
    # as JSON text, so that null, numbers and lists are values like any other; empty: key absent
    columns = {key: [json.dumps(value[key]) if key in value else "" for value in objects] for key in keys}
    fields = {
        key: _fit_classes(known, values, seed, strength) if _is_learnable(values) else _fit_commonest(values)
        for key, values in columns.items()
    }

    def predict(asked: Matrix) -> Predicted:
        rows: list[dict[str, Any]] = [{} for _ in range(asked.shape[0])]
        confidence = [1.0] * asked.shape[0]
        for key, predict_field in fields.items():
            for i, (text, sure) in enumerate(zip(*predict_field(asked), strict=True)):
                confidence[i] *= 1.0 if sure is None else sure
                if text:
                    rows[i][key] = json.loads(text)
        return [json.dumps(row, ensure_ascii=False) for row in rows], list(confidence)

    return predict


def _fit_commonest(values: Sequence[str]) -> Predict:
    common, count = Counter(values).most_common(1)[0]
    return lambda asked: ([common] * asked.shape[0], [count / len(values)] * asked.shape[0])


def _is_learnable(values: Sequence[str]) -> bool:
    distinct = len(set(values))
    return distinct <= MAX_CLASSES and len(values) >= MIN_PER_CLASS * distinct


def _fit_classes(known: Matrix, values: Sequence[str], seed: int, strength: float) -> Predict:
    if len(set(values)) == 1:
        return _fit_commonest(values)
    # one sparse solver per class: a quarter of the time of the multinomial fit at the same accuracy
    binary = LogisticRegression(C=strength, solver="liblinear", random_state=seed, class_weight="balanced")
    model = OneVsRestClassifier(binary)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(known, np.asarray(values))

    def predict(asked: Matrix) -> Predicted:
        chances = model.predict_proba(asked)
        best = chances.argmax(axis=1)
        sure = chances[np.arange(len(best)), best]
        return [str(model.classes_[i]) for i in best], [float(chance) for chance in sure]

    return predict


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
