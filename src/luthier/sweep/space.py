"""What is swept over: keys of the recipe, each with the values that it may take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from luthier.errors import RecipeError
from luthier.recipe import Adapter, Recipe, Train
from luthier.recipe.method_defaults import COMPARED
from luthier.recipe.method_options import METHOD_SECTIONS, method_name, writes_own
from luthier.recipe.mistakes import explain_mistake, suggest_key
from luthier.recipe.yaml_text import StrictYaml

Metric = Literal["validation_loss", "validation_score"]
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\s*\.\.\s*({NUMBER})")
WHOLE = re.compile(r"[-+]?\d+")
DECADE = 10.0  # a range as wide as this is divided evenly in its logarithm
DIGITS = 3  # of values inside a range: what tells two trials apart is in the first two
# of `train`, what no validation of a trial would show, or what belongs to the data
FIXED = ("max_minutes", "temper", "select", "replay_data")


@dataclass(frozen=True)
class Axis:
    """One key and its values: a list of them, or a range of numbers.

    Attributes:
        key: dotted, as in `train.learning_rate`.
        values: of a list; empty for a range.
        low, high: of a range, both included.
        whole: only whole numbers.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    @property
    def is_log(self) -> bool:
        """Whether a range is divided evenly in its logarithm: a step is a factor, not a difference."""
        return not self.values and self.low > 0 and self.high >= DECADE * self.low

    def at(self, share: float) -> Any:
        """The value at a share of the way, 0 to 1; of a list the one whose equal part it falls in."""
        if self.values:
            return self.values[min(len(self.values) - 1, int(share * len(self.values)))]
        if self.is_log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        if self.whole:
            return min(int(self.high), max(int(self.low), round(value)))
        ends = {0.0: self.low, 1.0: self.high}
        return ends.get(share, float(f"{value:.{DIGITS}g}"))

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        if self.values:
            return {"key": self.key, "values": list(self.values)}
        return {"key": self.key, "low": self.low, "high": self.high, "log": self.is_log}


def metric_of(recipe: Recipe) -> Metric:
    """What trials are compared by when nothing is asked for: the loss, where there is one."""
    return "validation_score" if writes_own(recipe.method) else "validation_loss"


def read_axes(texts: Sequence[str], recipe: Recipe, metric: Metric) -> list[Axis]:
    """The axes that `--over` names, checked against the recipe.

    Args:
        texts: each `KEY=LOW..HIGH` or `KEY=VALUE,VALUE,...`.

    Raises:
        RecipeError: not of that form, a key that is unknown or cannot be swept, a value that the recipe
            refuses, or trials that the metric cannot compare.
    """
    if not texts:
        raise RecipeError("nothing to sweep over", fix="add --over train.learning_rate=1e-5..1e-3")
    axes: list[Axis] = []
    for text in texts:
        axis = _parse(text)
        if axis.key in {other.key for other in axes}:
            raise RecipeError(f"{axis.key} is there twice", where=_place(text), fix="give all values at once")
        _check(axis, text, recipe, metric)
        axes.append(axis)
    return axes


def _refuse_metric(recipes: Sequence[Recipe], metric: Metric, where: str) -> None:
    """Refuse a metric that a trial would not have, or that would not mean the same in all of them."""
    for recipe in recipes:
        kind = method_name(recipe.method)
        if metric == "validation_loss" and writes_own(recipe.method):
            raise RecipeError(
                f"method {kind} has no validation loss: it learns from answers that it writes itself",
                where=where,
                fix="choose by the answers: --metric validation_score",
            )
        if metric == "validation_score" and recipe.reads_texts:
            raise RecipeError(
                f"method {kind} has no validation score: texts are not answered",
                where=where,
                fix="choose by the loss: --metric validation_loss",
            )
    heads = {method_name(recipe.method) for recipe in recipes} & COMPARED.keys()
    if heads and len({method_name(recipe.method) for recipe in recipes}) > 1:
        raise RecipeError(
            f"what method {min(heads)} makes does not write, and what other methods make is scored otherwise",
            where=where,
            fix="sweep over each method by itself",
        )


def trial_recipe(recipe: Recipe, changes: Mapping[str, Any], *, where: str) -> Recipe:
    """The recipe with other values at dotted keys.

    Raises:
        RecipeError: it refuses one of them; told as the recipe's own mistakes are.
    """
    raw = recipe.model_dump(mode="json")
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = raw
        for depth, part in enumerate(parents):
            inner = section.setdefault(part, {})
            if not isinstance(inner, dict):
                name = ".".join(parents[: depth + 1])
                raise RecipeError(f"{key}: {name} is {inner!r} here, which has no options", where=where)
            section = inner
        section[last] = value
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(explain_mistake(error), where=where, fix=suggest_key(error, Recipe)) from None


def value_of(recipe: Recipe, key: str) -> Any:
    """What a recipe has at a dotted key, as it is written to JSON."""
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


def sweepable_keys() -> list[str]:
    """What can differ between trainings over one base, of the same examples."""
    options = {name for section in METHOD_SECTIONS.values() for name in section.model_fields}
    return [
        *(f"train.{name}" for name in Train.model_fields if name not in FIXED),
        *(f"adapter.{name}" for name in Adapter.model_fields),
        "method",
        *sorted(f"method.{name}" for name in options - {"kind"}),
    ]


def _parse(text: str) -> Axis:
    key, sign, spec = (part.strip() for part in text.partition("="))
    if not (key and sign and spec):
        raise RecipeError(
            f"expected KEY=VALUES, got {text!r}",
            where="--over",
            fix="write a range or a list: train.learning_rate=1e-5..1e-3, adapter.rank=4,8,16",
        )
    if found := RANGE.fullmatch(spec):
        low, high = map(float, found.groups())
        if not (low < high and math.isfinite(high)):
            raise RecipeError(f"expected a range from low to high, got {spec}", where=_place(text))
        return Axis(key, low=low, high=high, whole=all(map(WHOLE.fullmatch, found.groups())))
    if ".." in spec:
        raise RecipeError(
            f"expected two numbers, got {spec}", where=_place(text), fix="write a range as 1e-5..1e-3"
        )
    try:
        values = yaml.load(f"[{spec}]", Loader=StrictYaml)  # a SafeLoader
    except yaml.YAMLError:
        raise RecipeError(
            f"expected values with commas between them, got {spec}", where=_place(text)
        ) from None
    return Axis(key, values=tuple(values))


def _check(axis: Axis, text: str, recipe: Recipe, metric: Metric) -> None:
    known = sweepable_keys()
    if meant := next((key for key in known if key.endswith(f".{axis.key}")), None):
        raise RecipeError(f"unknown key {axis.key!r}", where=_place(text), fix=f"did you mean {meant!r}?")
    tried = axis.values or (axis.at(0.0), axis.at(0.5), axis.at(1.0))
    recipes = [trial_recipe(recipe, {axis.key: value}, where=_place(text)) for value in tried]
    if axis.key not in known:
        raise RecipeError(
            f"{axis.key!r} cannot be swept: trials share the examples and the base, and differ in training",
            where=_place(text),
            fix=f"sweep over one of: {', '.join(known)}",
        )
    if any(found.adapter.kind == "full" for found in recipes):
        raise RecipeError(
            "a sweep trains adapters over one base, which full fine-tuning changes",
            where=_place(text),
            fix="use another `kind` of adapter",
        )
    found = [value_of(one, axis.key) for one in recipes]
    if axis.values and (len(found) < 2 or any(value in found[:i] for i, value in enumerate(found))):
        raise RecipeError("expected at least two different values", where=_place(text))
    _refuse_metric(recipes, metric, _place(text))
    if axis.key.startswith("method") and metric == "validation_loss":
        raise RecipeError(
            f"losses of trials that differ in {axis.key} cannot be compared",
            where=_place(text),
            fix="choose by the answers: --metric validation_score",
        )


def _place(text: str) -> str:
    return f"--over {text}"
