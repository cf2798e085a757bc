"""`rubric` and `pairwise`: graders whose scores are a language model's opinions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from luthier.examples.example import Example
from luthier.grade.agreement import Agreement, correct_mean, measure_agreement
from luthier.grade.answer_json import NotJson
from luthier.grade.chat_endpoint import Reply, read_key
from luthier.grade.judge import Judge
from luthier.grade.judge_labels import read_labels
from luthier.grade.judge_prompt import pair_prompt, read_pass, read_winner, rubric_prompt
from luthier.grade.score import Case, Score
from luthier.recipe.grader_options import PairwiseOptions, RubricOptions

Options = RubricOptions | PairwiseOptions
UNLABELLED = "no human labels: name a file of them under grader.labels"


def check_judge(options: Options) -> None:
    """Refuse what would stop a judge once the answers are there and paid for.

    Raises:
        RecipeError: the variable that should hold the endpoint's key is not set.
        DataError: the file of labels is no good.
    """
    if options.endpoint:
        read_key(options.endpoint)
    if options.labels:
        read_labels(Path(options.labels), options.kind)


class _Judged(ABC):
    """What the two have in common: calibration, correction, and what `scores.json` is told.

    Args:
        options: the recipe's section.
        judge: who is asked; made from the options when absent.
    """

    kind: Literal["rubric", "pairwise"]
    thresholds: tuple[float, ...]

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        self.options = options
        self.judge = judge or Judge(options)

    @property
    def name(self) -> str:
        """As in the recipe."""
        return self.kind

    @cached_property
    def calibration(self) -> Agreement | None:
        """The judge against the people who labelled; None without labels. Asks the judge, once.

        Raises:
            DataError: the file of labels is no good.
        """
        if self.options.labels is None:
            return None
        labels = read_labels(Path(self.options.labels), self.kind)
        judged = self._judge([(label.answer, label.reference, label.example) for label in labels])
        human = [label.human for label in labels]
        return measure_agreement(human, [score.value for score in judged], self.thresholds)

    @property
    def gates(self) -> bool:
        """Whether its scores may decide a gate: only when people's labels show that it can judge."""
        return self.calibration is not None and self.calibration.doubts is None

    @property
    def gates_reason(self) -> str:
        """Why it may, or why it may not."""
        found = self.calibration
        if found is None:
            return f"the judge is not calibrated: {UNLABELLED}"
        if found.doubts:
            return f"the judge is not calibrated: {found.doubts}"
        kappa = "undefined" if found.kappa is None else f"{found.kappa:.2f}"
        return f"calibrated on {found.n} labels: kappa {kappa}"

    def about(self) -> dict[str, Any]:
        """Who judged, how well, how many questions were put, and how many in vain (labels included)."""
        return {
            "kind": self.kind,
            "model": self.judge.name,
            "url": self.options.endpoint.url if self.options.endpoint else None,
            "calibration": None if self.calibration is None else self.calibration.as_json(),
            "asked": self.judge.asked,
            "unreached": self.judge.unreached,
        }

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer; see `grade_many`."""
        return self.grade_many([(answer, reference, example)])[0]

    def grade_many(self, cases: Sequence[Case]) -> list[Score]:
        """Score every answer, a few requests at a time.

        A judge that cannot be reached, or whose reply is not what was asked for, leaves an answer unscored.

        Raises:
            RecipeError: the variable that should hold the endpoint's key is not set.
            ModelError: the model that should run here cannot be loaded.
        """
        return self._judge(cases)

    def summarise(self, rows: Sequence[Mapping[str, Any]], clusters: Sequence[str] | None) -> dict[str, Any]:
        """`corrected`: the mean as people would have given it; None where the judge may not gate."""
        scored = [place for place, row in enumerate(rows) if row["score"] is not None]
        if self.calibration is None or not scored:
            return {"corrected": None}
        own = None if clusters is None else [clusters[place] for place in scored]
        found = correct_mean([rows[place]["score"] for place in scored], self.calibration, clusters=own)
        return {"corrected": None if found is None else asdict(found)}

    @abstractmethod
    def _judge(self, cases: Sequence[Case]) -> list[Score]:
        """Score every answer; the kinds of judge differ in this alone."""


class Rubric(_Judged):
    """1 when the judge says that the answer meets the rubric, else 0.

    Pass or fail rather than points: it is what people agree on most, and what can be corrected.
    """

    kind = "rubric"
    thresholds = (1.0,)
    metric = "passes the rubric (judged)"

    def _judge(self, cases: Sequence[Case]) -> list[Score]:
        assert isinstance(self.options, RubricOptions)
        rubric, shown = self.options.rubric, self.options.reference
        prompts = [
            rubric_prompt(answer, reference if shown and reference.strip() else None, example, rubric)
            for answer, reference, example in cases
        ]
        return [_passed(reply) for reply in self.judge.ask(prompts)]


class Pairwise(_Judged):
    """1 when the judge prefers the answer to the reference, 0.5 for a tie, 0 when it prefers the reference.

    The mean is the rate of wins against the reference, ties as halves: 0.5 is as good as the reference.
    The judge is asked twice, with the order swapped; when the two verdicts differ, it is a tie.
    """

    kind = "pairwise"
    thresholds = (1.0, 0.5)
    metric = "win rate against the reference (judged)"

    def _judge(self, cases: Sequence[Case]) -> list[Score]:
        ready = [_settled(answer, reference) for answer, reference, _ in cases]
        open_ = [case for case, score in zip(cases, ready, strict=True) if score is None]
        prompts = [
            pair_prompt(first, second, example, self.options.rubric)
            for answer, reference, example in open_
            for first, second in ((answer, reference), (reference, answer))
        ]
        replies = self.judge.ask(prompts)
        judged = iter([_won(*pair) for pair in zip(replies[::2], replies[1::2], strict=True)])
        return [score if score is not None else next(judged) for score in ready]

    def summarise(self, rows: Sequence[Mapping[str, Any]], clusters: Sequence[str] | None) -> dict[str, Any]:
        """`corrected`, and `order_changed`: the share of verdicts that swapping the answers changed."""
        asked = [row["detail"]["orders"] for row in rows if "orders" in row["detail"]]
        changed = sum(first != second for first, second in asked) / len(asked) if asked else None
        return super().summarise(rows, clusters) | {"order_changed": changed}


def _settled(answer: str, reference: str) -> Score | None:
    if not reference.strip():
        return Score(None, "the reference is empty")
    return Score(0.5, "the same text as the reference") if answer.strip() == reference.strip() else None


def _passed(reply: Reply) -> Score:
    if reply.text is None:
        return _unscored(reply)
    try:
        passed, why = read_pass(reply.text)
    except NotJson as problem:
        return Score(None, f"the judge's reply cannot be read: {problem}", {"reply": reply.text[:400]})
    return Score(1.0, None, {"judge": why[:400]}) if passed else Score(0.0, why[:400] or "fails the rubric")


def _won(plain: Reply, swapped: Reply) -> Score:
    sides = []
    for reply, names in ((plain, ("answer", "reference")), (swapped, ("reference", "answer"))):
        if reply.text is None:
            return _unscored(reply)
        try:
            winner, why = read_winner(reply.text)
        except NotJson as problem:
            return Score(None, f"the judge's reply cannot be read: {problem}", {"reply": reply.text[:400]})
        sides.append(({"A": names[0], "B": names[1]}.get(winner, "tie"), why[:400]))
    (first, why), (second, _) = sides
    detail = {"orders": [first, second], "judge": why}
    if first != second:
        return Score(0.5, "the verdict changed with the order", detail)
    value = {"answer": 1.0, "tie": 0.5, "reference": 0.0}[first]
    return Score(value, None if first == "answer" else why or first, detail)


def _unscored(reply: Reply) -> Score:
    return Score(None, reply.problem or "the judge said nothing", {"unreached": reply.unreached})
