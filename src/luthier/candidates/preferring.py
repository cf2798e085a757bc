"""Candidates with a head of their own: what a reward model prefers, which label a classifier names.

For a reward a held-out example offers its answer and the worse ones, in an order of its own; the candidate's
answer is the text it prefers, which is right when it is the one that people preferred.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from luthier.candidates.answer import Answer
from luthier.chat import ChatFormat, TrainingSequence
from luthier.examples.example import Example
from luthier.forest import score
from luthier.forest.logprobs import Model
from luthier.methods.preference import answer_sequences
from luthier.models.heads import labels_of
from luthier.train.outputs import score_sequences

# What each sequence is worth, in order, on any scale.
Worth = Callable[[Sequence[TrainingSequence]], Sequence[float]]
STRENGTH = 20.0  # inverse of the regularization, as for the other linear models on n-grams


def choose(examples: Sequence[Example], worth: Worth, chat: ChatFormat, system: str | None) -> list[Answer]:
    """The answer of each example that is worth most.

    Args:
        examples: each with worse answers.
        worth: of prompts with an answer.

    Returns:
        One per example; its confidence is the probability that the chosen one is the best by the
        Bradley-Terry-Luce model: exp(worth) over the sum for all that were offered.
    """
    offered = [_offered(example) for example in examples]
    sequences = [
        sequence
        for example, answers in zip(examples, offered, strict=True)
        for sequence in answer_sequences(example, answers, chat, system)
    ]
    started = time.perf_counter()
    values = iter(worth(sequences))
    seconds = (time.perf_counter() - started) / max(1, len(examples))
    chosen, place = [], 0
    for example, answers in zip(examples, offered, strict=True):
        request = chat.with_system(example.asked, system)
        own = np.array([next(values) for _ in answers])
        best = int(own.argmax())
        sequence = sequences[place + best]
        place += len(answers)
        chosen.append(
            Answer(
                id=example.id,
                prompt=chat.render(request, generation=True),
                answer=answers[best],
                confidence=float(1 / np.exp(own - own[best]).sum()),
                prompt_tokens=sequence.prompt_tokens,
                answer_tokens=len(sequence.ids) - sequence.prompt_tokens,
                seconds=seconds,
            )
        )
    return chosen


def likelihood(model: Model) -> Worth:
    """Mean log-probability per token of an answer: what the model itself would rather write."""

    def worth(sequences: Sequence[TrainingSequence]) -> list[float]:
        flags = [[weight > 0 for weight in sequence.weights[1:]] for sequence in sequences]
        return [float(v.mean()) for v in score(model, [s.ids for s in sequences], needed=flags)]

    return worth


def name_labels(
    model: Model, examples: Sequence[Example], requests: Sequence[tuple[str, Sequence[int]]]
) -> list[Answer]:
    """The label of each request by a model with a classification head; its confidence is the softmax.

    Args:
        requests: of each example, the text that the model is given and its token ids.
    """
    started = time.perf_counter()
    chances = score_sequences(model, [ids for _, ids in requests]).softmax(dim=1)
    seconds = (time.perf_counter() - started) / max(1, len(examples))
    labels = labels_of(model)
    sure, places = chances.max(dim=1)
    return [
        Answer(
            id=example.id,
            prompt=text,
            answer=labels[place],
            confidence=chance,
            prompt_tokens=len(ids),
            answer_tokens=0,
            seconds=seconds,
        )
        for example, (text, ids), place, chance in zip(
            examples, requests, places.tolist(), sure.tolist(), strict=True
        )
    ]


class PreferredWords:
    """A linear Bradley-Terry model of answers' words and lengths, trained when it is made.

    It does not look at the request. Where it does as well, people preferred a manner, such as length, and a
    reward model would be a costly way to measure it.
    """

    def __init__(self, train: Sequence[Example], *, seed: int) -> None:
        self._words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        self._scale = StandardScaler(with_mean=False)
        ranked = [[example.answer, *example.rejected] for example in train]
        texts = [text for answers in ranked for text in answers]
        self._words.fit(texts)
        self._scale.fit(_lengths(texts))
        better = self._features([a for answers in ranked for a, _ in pairwise(answers)])
        worse = self._features([b for answers in ranked for _, b in pairwise(answers)])
        gap = csr_matrix(better - worse)
        # a preference says the same read from either side, so there is no intercept
        self._model = LogisticRegression(
            C=STRENGTH, fit_intercept=False, solver="liblinear", random_state=seed
        )
        self._model.fit(vstack([gap, -gap]), np.repeat([1, 0], gap.shape[0]))

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        """The answer of each example that is worth most; no prompt is read."""
        answers = []
        for example in examples:
            started = time.perf_counter()
            offered = _offered(example)
            own = np.asarray(self._features(offered) @ self._model.coef_[0])
            best = int(own.argmax())
            sure = float(1 / np.exp(own - own[best]).sum())
            seconds = time.perf_counter() - started
            answers.append(Answer(example.id, None, offered[best], sure, None, None, seconds))
        return answers

    def _features(self, texts: Sequence[str]) -> csr_matrix:
        return csr_matrix(hstack([self._words.transform(texts), self._scale.transform(_lengths(texts))]))


def _lengths(texts: Sequence[str]) -> np.ndarray:
    return np.log1p([[len(text)] for text in texts])


def _offered(example: Example) -> list[str]:
    """The answers in an order that does not tell which is the best, the same on every call."""
    answers = [example.answer, *example.rejected]
    random.Random(f"{example.id}/offered").shuffle(answers)
    return answers
