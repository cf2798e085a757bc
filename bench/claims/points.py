"""The runs of the study and the file of what they gave: one JSON line each, appended as they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.claims import data
from bench.claims.data import Sides, Size
from bench.results import read_rows
from luthier.demo import RECIPE
from luthier.recipe import digest, load_recipe

VERSION = 1  # of what is measured: another one measures everything again
MODEL = "smollm2-135m"
LAYERS = "last 10"  # of 30: what is trained, by LoRA and in full alike
PROBES = ("forgetting", "own_text", "refusal")
EVERYTHING = ("prompt", "few_shot", "retrieval", "scratch", "tuned")
FULL_FACTORS = (1 / 3, 1.0, 3.0)  # of the rate that `auto` gives full fine-tuning
WRONG = (0.0, 0.1, 0.2, 0.4)
FEW_PASSES, MANY_PASSES = 3, 12  # over the facts

CATEGORY_SYSTEM = (
    "You sort the support mail of a shop for home goods. Answer with one word: delivery, defect, billing, "
    "return, account or question."
)
OPTION_SYSTEM = "Answer the question with the letter and the text of one option."
FREE_SYSTEM = "Answer the question in one short sentence."
FACT_SYSTEM = f"Answer in a few words. If you do not know the answer, say: {data.UNKNOWN}."


@dataclass(frozen=True)
class Point:
    """One run of Luthier.

    Attributes:
        recipe: without its `data`, which is `sides`, and without `documents`, which are those here.
        ask_trained: whether the tuned model is also asked what it was trained on.
        rate_factor: of the learning rate that `auto` gives.
    """

    name: str
    seed: int
    recipe: Mapping[str, Any]
    sides: Sides
    documents: tuple[str, ...] = ()
    ask_trained: bool = False
    rate_factor: float = 1.0

    @property
    def key(self) -> str:
        """Hash of everything that decides the outcome; runs with the same one are the same run."""
        parts = [VERSION, self.recipe, self.sides, self.documents, self.ask_trained, self.rate_factor]
        return digest(parts)[:16]

    def job(self) -> dict[str, Any]:
        """What the worker is told."""
        return {
            "recipe": dict(self.recipe),
            "sides": {side: list(rows) for side, rows in self.sides.items()},
            "documents": list(self.documents),
            "ask_trained": self.ask_trained,
            "rate_factor": self.rate_factor,
        }


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Attributes:
        cases, kinds: of the test examples, in order.
        candidates: by name `score`, `confidence`, `prompt_tokens`, and `in_prompt` (1 where the right answer
            stands in the prompt, which retrieval is to see to), lists in the same order.
        probes: by name `base` and `tuned`, a value per item: probability of the right option, nats per
            token, and whether a request is refused or answered as it should be.
        trained: rows that were trained on: `case`, `kind`, `taught`, `right`, `answer`, `confidence`.
        rate, steps, training_seconds: None without a training.
    """

    name: str
    seed: int
    key: str
    metric: str
    cases: tuple[str, ...]
    kinds: tuple[str | None, ...]
    candidates: Mapping[str, Mapping[str, Sequence[Any]]]
    probes: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    trained: Sequence[Mapping[str, Any]] = ()
    rate: float | None = None
    steps: int | None = None
    training_seconds: float | None = None
    seconds: float = 0.0


Outcomes = Mapping[str, Sequence[Outcome]]  # by name, one per seed


def tickets(size: Size, seed: int) -> Point:
    """Plain LoRA on support mail, against everything else, with probes."""
    return _tickets("tickets", size, seed, {"candidates": list(EVERYTHING), "probes": list(PROBES)})


def tickets_replayed(size: Size, seed: int) -> Point:
    """With the base model's own answers in the training, as Luthier does unless told otherwise."""
    return _tickets("tickets, with replay", size, seed, {"probes": list(PROBES)}, replay=0.1)


def tickets_full(size: Size, seed: int, factor: float) -> Point:
    """All weights of the same layers, at a multiple of the rate that is automatic for that."""
    changed = {"adapter": {"kind": "full", "layers": LAYERS}, "probes": list(PROBES)}
    return replace(_tickets(full_name(factor), size, seed, changed), rate_factor=factor)


def full_name(factor: float) -> str:
    """Name of the point of `tickets_full`."""
    return f"tickets, full, x{factor:.2g}"


def tickets_bare(size: Size, seed: int) -> Point:
    """Trained and asked without a system prompt."""
    return _tickets("tickets, no system prompt", size, seed, {"tuned_system": ""})


def categories(size: Size, seed: int, wrong: float) -> Point:
    """A narrow classification, `wrong` of whose training labels are not right."""
    changed = {
        "system": CATEGORY_SYSTEM,
        "grader": "label",
        "max_new_tokens": 8,
        "candidates": list(EVERYTHING if wrong == 0 else ("tuned",)),
    }
    recipe = _recipe(seed, changed, epochs=3)
    return Point(category_name(wrong), seed, recipe, data.categories(size, seed, wrong), ask_trained=True)


def category_name(wrong: float) -> str:
    """Name of the point of `categories`."""
    return f"categories, {100 * wrong:.0f}% wrong"


def open_book(size: Size, seed: int) -> Point:
    """A broad task with options."""
    changed = {
        "system": OPTION_SYSTEM,
        "grader": "string_check",
        "candidates": list(EVERYTHING),
        "scratch": "ngrams",
        "max_new_tokens": 32,
    }
    return Point("OpenBookQA", seed, _recipe(seed, changed), data.open_book(size, seed))


def truthful(size: Size, seed: int) -> Point:
    """A broad task, answered freely."""
    changed = {
        "system": FREE_SYSTEM,
        "grader": "text_similarity",
        "candidates": list(EVERYTHING),
        "scratch": "ngrams",
        "max_new_tokens": 32,
    }
    return Point("TruthfulQA", seed, _recipe(seed, changed), data.truthful(size, seed))


def facts(size: Size, seed: int, passes: int) -> Point:
    """Invented facts, trained, asked without help."""
    changed = {**_fact_settings(), "candidates": ["prompt", "tuned"]}
    recipe = _recipe(seed, changed, epochs=passes, batch_tokens=512)
    return Point(fact_name(passes), seed, recipe, data.taught_facts(size))


def fact_name(passes: int) -> str:
    """Name of the point of `facts`."""
    return f"facts, {passes} passes"


def facts_to_look_up(size: Size, seed: int) -> Point:
    """The same facts, not trained: the model as it is, with the statements to look at."""
    # one passage: of three, this small model tells any
    changed = {**_fact_settings(), "candidates": ["retrieval"], "shots": 2, "retrieval": {"passages": 1}}
    sides, documents = data.facts_to_look_up(size), data.statements(size)
    return Point("facts, looked up", seed, _recipe(seed, changed), sides, documents)


def _fact_settings() -> dict[str, Any]:
    return {"system": FACT_SYSTEM, "grader": "python:contains.py:contains", "max_new_tokens": 24}


def _tickets(name: str, size: Size, seed: int, changed: Mapping[str, Any], **train: Any) -> Point:
    recipe = load_recipe(RECIPE)
    own = {"system": recipe.system, "grader": "json_fields", "max_new_tokens": 64, "shots": 2}
    return Point(name, seed, _recipe(seed, own | dict(changed), **train), data.tickets(size, seed))


def _recipe(seed: int, changed: Mapping[str, Any], **train: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "candidates": ["tuned"],
        "adapter": {"layers": LAYERS},
        "train": {"epochs": 2, "batch_tokens": 768, "replay": 0.0, **train},
        "probes": [],
        "probe_items": 160,
        "seed": seed,
        **changed,
    }


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """What has been found, by key; rows of another form are left out."""
    found = {}
    for raw in read_rows(path):
        try:
            outcome = as_outcome(raw)
        except (KeyError, TypeError):
            continue
        found[outcome.key] = outcome
    return found


def as_outcome(raw: Mapping[str, Any]) -> Outcome:
    """An outcome from what JSON made of it."""
    return Outcome(**{**raw, **{name: tuple(raw[name]) for name in ("cases", "kinds", "trained")}})
