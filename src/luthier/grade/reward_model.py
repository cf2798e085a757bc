"""A reward model that was trained here as a grader, and as a reward to learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from luthier.chat import ChatFormat
from luthier.errors import RecipeError
from luthier.examples.example import Example
from luthier.grade.score import Case, Score
from luthier.methods.preference import answer_sequences
from luthier.models import load_adapter, load_model
from luthier.recipe import parse_recipe
from luthier.recipe.grader_options import RewardModelOptions
from luthier.recipe.method_options import method_name
from luthier.train.outputs import score_sequences

if TYPE_CHECKING:
    from luthier.models import Model


class RewardModel:
    """How likely people are to prefer an answer to the reference, as a reward model has it.

    By the Bradley-Terry model that is s(r(answer) - r(reference)), with the logistic function s; what is
    learnt from is r(answer) itself. It decides no gate: a model that learns from a reward finds answers
    that the reward likes better than people do.

    Args:
        run: the folder of a run with `method: reward`.

    Raises:
        RecipeError: it is not one, or has not been trained.
    """

    name = "reward_model"
    metric = "preferred to the reference"
    gates = False
    gates_reason = (
        "a reward model's scores decide nothing: what learns from a reward may please it more than people; "
        "grade by a rule, or by a judge with human labels"
    )

    def __init__(self, options: RewardModelOptions) -> None:
        self.run = Path(options.run)
        file = self.run / "recipe.yaml"
        if not file.is_file() or not (self.run / "adapter").is_dir():
            raise RecipeError(
                "there is no trained reward model", where=options.run, fix="train one with `method: reward`"
            )
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        self._recipe = parse_recipe(raw, base=self.run, where=str(file))
        if method_name(self._recipe.method) != "reward":
            kind = method_name(self._recipe.method)
            raise RecipeError(f"this run's method is {kind}, not reward", where=str(file))

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer; see `grade_many`."""
        return self.grade_many([(answer, reference, example)])[0]

    def grade_many(self, cases: Sequence[Case]) -> list[Score]:
        """Score every answer against its reference."""
        own = self.reward_many(cases)
        theirs = self.reward_many([(reference, reference, example) for _, reference, example in cases])
        return [
            Score(1 / (1 + math.exp(min(500.0, other - reward))), detail={"reward": reward})
            for reward, other in zip(own, theirs, strict=True)
        ]

    def reward_many(self, cases: Sequence[Case]) -> list[float]:
        """r of every answer, on the scale of the reward model."""
        sequences = [self._ids(answer, example) for answer, _, example in cases]
        values: list[float] = score_sequences(self._model, sequences)[:, 0].tolist() if sequences else []
        return values

    def about(self) -> dict[str, Any]:
        """Which reward model it is."""
        return {"kind": self.name, "model": self._recipe.model, "run": str(self.run), "unreached": 0}

    def _ids(self, answer: str, example: Example) -> list[int]:
        system = self._recipe.system_of("tuned")
        if answer.strip():
            (sequence,) = answer_sequences(example, [answer], self._chat, system)
            return list(sequence.ids)
        request = example.asked
        return [*self._chat.prompt(self._chat.with_system(request, system)), self._chat.terminator]

    @cached_property
    def _loaded(self) -> tuple[Model, ChatFormat]:
        loaded = load_model(self._recipe.model)
        chat = ChatFormat(loaded.tokenizer, extra_stop_ids=loaded.stop_ids)
        return load_adapter(loaded, self.run / "adapter"), chat

    @property
    def _model(self) -> Model:
        return self._loaded[0]

    @property
    def _chat(self) -> ChatFormat:
        return self._loaded[1]
