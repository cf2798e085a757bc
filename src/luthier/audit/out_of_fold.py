"""What a fast model says of each example when it has not seen it: probabilities from cross-validation."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

FOLDS = 5
STRENGTH = 5.0  # inverse of the regularization: less would follow wrong labels, more would not learn
_CHARACTER_FEATURES = 30_000

Chances = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def out_of_fold_chances(
    texts: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[Hashable],
    *,
    classes: int,
    seed: int = 0,
    told: Callable[[Chances, Labels], None] = lambda chances, labels: None,
) -> Chances:
    """`[N, K]` probabilities of a linear model on words and characters, which never saw the row's group.

    Texts are weighted by how rare their words are in all of them, which takes no label to know.

    Args:
        labels: 0 to K - 1.
        groups: examples with the same are in one fold.
        classes: K.
        told: given each fold's chances and labels as soon as they are known; may raise, to stop.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_union

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"),
        TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=_CHARACTER_FEATURES
        ),
    ).fit_transform(texts)
    given, fold = np.asarray(labels), folds(labels, groups, seed=seed)
    chances = np.zeros((len(texts), classes))
    for held in range(FOLDS):
        known, asked = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        if not len(asked):
            continue
        binary = LogisticRegression(
            C=STRENGTH, solver="liblinear", random_state=seed, class_weight="balanced"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = OneVsRestClassifier(binary).fit(features[known], given[known])
        chances[np.ix_(asked, model.classes_)] = model.predict_proba(features[asked])
        told(chances[asked], given[asked])
    return chances


def folds(labels: Sequence[int], groups: Sequence[Hashable], *, seed: int = 0) -> npt.NDArray[np.int64]:
    """A fold for each example `[N]`: whole groups, each label spread evenly, the largest groups first."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for m, group in enumerate(groups):
        members[group].append(m)
    shuffled = list(members.values())
    np.random.default_rng(seed).shuffle(shuffled)
    fold = np.zeros(len(labels), dtype=np.int64)
    load: dict[int, list[int]] = defaultdict(lambda: [0] * FOLDS)
    sizes = [0] * FOLDS
    for own in sorted(shuffled, key=len, reverse=True):
        label, _ = Counter(labels[m] for m in own).most_common(1)[0]
        chosen = min(range(FOLDS), key=lambda k: (load[label][k], sizes[k]))
        fold[own] = chosen
        sizes[chosen] += len(own)
        for m in own:
            load[labels[m]][chosen] += 1
    return fold
