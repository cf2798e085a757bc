"""Labels that are doubtful, by what a training made of them: each example's loss, epoch by epoch.

A model learns first what most examples agree on, and last, if ever, an example that contradicts them
(forgetting events: Toneva et al. 2019, arXiv 1812.05159; area under the margin: Pleiss et al. 2020, arXiv
2001.10528; dataset cartography: Swayamdipta et al. 2020, arXiv 2009.10795). With p the model's probability of
an example's answer when it was trained on, and q the share of that answer among the examples,

    gain = log p - log q

is what the request tells the model of the answer (pointwise V-information: Ethayarajh et al. 2022, arXiv
2110.08420). Below 0 the request speaks against the answer. An example is doubtful where it does so on the
whole, in the mean over the times that count, and clearly at last, when the rate is low and the model has
settled. What counts begins once the model has learnt the labels: with the first rows together of which the
median gain is above 0. Labels that others have too are judged, no free texts.

It costs no pass: the losses are those of the training itself. So the model has seen an example before, from
the second epoch on, and follows a wrong label more the longer it is trained.

Legend: N judged examples, R rows of the history, E epochs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.audit.finding import Finding, NotApplicableError, shown
from luthier.examples.example import Example
from luthier.examples.wording import normalise

LEAST_PER_LABEL = 10
LEAST_EXAMPLES = 50
LEAST_TIMES = 2  # once is as good as chance
ROWS_TOGETHER = 50  # of which the median says whether the labels are learnt
CLEARLY = math.log(2)  # half as likely as the label's share, at last
CHECK = "loss_history"

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Doubtful:
    """An example whose label may be wrong.

    Attributes:
        losses: of its answer, in nats, by epoch; None where it was not seen.
        usual: the median of the examples with the same answer.
        surprise: minus its mean gain, in nats: how much less likely its label is than without the request.
    """

    example: Example
    losses: tuple[float | None, ...]
    usual: tuple[float | None, ...]
    surprise: float

    def as_finding(self) -> Finding:
        """What a person reads of it; the score is `surprise`."""
        given = shown(self.example.answer, 30)
        last = next(loss for loss in reversed(self.losses) if loss is not None)
        return Finding(
            check=CHECK,
            severity="warning",
            score=self.surprise,
            message=f"labelled {given}, which training did not believe: {math.exp(-last):.1%} at last",
            fix="read it, and correct the label or leave it: the other examples speak against it",
            examples=(self.example,),
        )


@dataclass(frozen=True)
class Reading:
    """What a training's history says.

    Attributes:
        judged: N.
        labels: how many different ones.
        first_step: from which on the history counts.
        doubtful: the most surprising first.
    """

    judged: int
    labels: int
    first_step: int
    doubtful: tuple[Doubtful, ...]


@dataclass(frozen=True)
class _History:
    """The rows of judged examples, in the order of training: `[R]` each."""

    place: Places
    epoch: Places
    step: Places
    loss: Numbers


def read_history(examples: Sequence[Example], rows: Iterable[Mapping[str, Any]]) -> Reading:
    """Judge training examples by the rows of `train/losses.jsonl`; rows of anything else are passed over.

    Raises:
        NotApplicableError: there are no labels to speak of, no history, or one of a model that did not learn.
    """
    judged, labels = _judged(examples)
    history = _gather(judged, rows)
    if not len(history.place):
        raise NotApplicableError("training kept no losses of these examples")
    share = np.bincount(labels) / len(labels)
    gain = -history.loss - np.log(share)[labels[history.place]]
    first = _first_step(history.step, gain)
    counts = history.step >= first
    place = history.place[counts]
    times = np.bincount(place, minlength=len(judged))
    if times.max() < LEAST_TIMES:
        raise NotApplicableError(
            f"once the labels were learnt (step {first}), training saw no example {LEAST_TIMES} times"
        )
    last = np.zeros(len(judged))
    last[place] = gain[counts]  # rows come in the order of training, and the latest stays
    mean = np.bincount(place, weights=gain[counts], minlength=len(judged)) / np.maximum(times, 1)
    found = np.flatnonzero((times >= LEAST_TIMES) & (mean < 0) & (last < -CLEARLY))
    losses, usual = _by_epoch(history, labels)
    doubtful = [
        Doubtful(judged[n], _row(losses[n]), _row(usual[labels[n]]), -float(mean[n]))
        for n in sorted(found, key=lambda n: mean[n])
    ]
    return Reading(len(judged), len(share), first, tuple(doubtful))


def _judged(examples: Sequence[Example]) -> tuple[list[Example], Places]:
    """Examples `[N]` whose answer enough others have too, and their labels, 0 to K - 1."""
    answers = [normalise(example.answer) for example in examples]
    often = {answer for answer, n in Counter(answers).items() if n >= LEAST_PER_LABEL}
    numbers = {answer: k for k, answer in enumerate(sorted(often))}
    places = Counter(example.where for example in examples)
    kept = [
        (example, numbers[answer])
        for example, answer in zip(examples, answers, strict=True)
        if answer in numbers and places[example.where] == 1 and _answers_once(example)
    ]
    known = {label for _, label in kept}
    if len(known) < 2 or len(kept) < LEAST_EXAMPLES:
        raise NotApplicableError(
            f"{len(kept)} training examples have an answer that {LEAST_PER_LABEL} or more give, "
            f"of {len(known)} kinds; it takes {LEAST_EXAMPLES} examples and two labels"
        )
    renumbered = {label: k for k, label in enumerate(sorted(known))}
    return [example for example, _ in kept], np.array([renumbered[label] for _, label in kept])


def _answers_once(example: Example) -> bool:
    """Whether its loss is that of its label alone."""
    return all(message.role != "assistant" or message.weight == 0 for message in example.request)


def _gather(judged: Sequence[Example], rows: Iterable[Mapping[str, Any]]) -> _History:
    place_of = {example.where: n for n, example in enumerate(judged)}
    whole: list[tuple[int, int, int]] = []
    losses: list[float] = []
    for row in rows:
        if (place := place_of.get(row["where"])) is not None:
            whole.append((place, row["epoch"], row["step"]))
            losses.append(row["loss"] * row["tokens"])
    columns = np.array(whole, dtype=np.int64).reshape(-1, 3)
    return _History(columns[:, 0], columns[:, 1], columns[:, 2], np.array(losses))


def _first_step(steps: Places, gain: Numbers) -> int:
    """The first step of the first whole steps, together `ROWS_TOGETHER` rows, of a median gain above 0."""
    starts = np.flatnonzero(np.diff(steps, prepend=-1))
    begin = 0
    for end in [*starts[1:], len(steps)]:
        if end - begin >= ROWS_TOGETHER or end == len(steps):
            if np.median(gain[begin:end]) > 0:
                return int(steps[begin])
            begin = end
    raise NotApplicableError("training did not come to know the labels better than their shares do")


def _by_epoch(history: _History, labels: Places) -> tuple[Numbers, Numbers]:
    """Mean loss of each example `[N, E]`, and the median of each label `[K, E]`; NaN where there is none."""
    epochs = int(history.epoch.max())
    cell = history.place * epochs + history.epoch - 1
    size = len(labels) * epochs
    seen = np.bincount(cell, minlength=size)
    flat = np.full(size, np.nan)
    np.divide(np.bincount(cell, weights=history.loss, minlength=size), seen, out=flat, where=seen > 0)
    losses = flat.reshape(len(labels), epochs)
    of_label = np.split(losses[np.argsort(labels, kind="stable")], np.cumsum(np.bincount(labels))[:-1])
    return losses, np.stack([_medians(own) for own in of_label])


def _medians(losses: Numbers) -> Numbers:
    """Of each column, NaN where it has no number."""
    found = np.full(losses.shape[1], np.nan)
    seen = ~np.isnan(losses).all(axis=0)
    found[seen] = np.nanmedian(losses[:, seen], axis=0)
    return found


def _row(values: Numbers) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else round(float(value), 4) for value in values)
