"""Probes as stages: a table of what each measures and reports, and what a probe is given.

Measuring needs the models and writes raw values (`answers/PROBE.json`); reporting reads them (and the
grader, for answers) and writes `probes/PROBE.json`. So another margin is reported again without a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from luthier import probes
from luthier.candidates import seen_by_tuned
from luthier.errors import LuthierError
from luthier.examples import Example
from luthier.grade import grade_all
from luthier.pipeline.models import Models
from luthier.pipeline.scoring import recipe_grader
from luthier.pipeline.stages import read_split
from luthier.probes import Evidence, Side, Subjects, Which
from luthier.probes.own_text import REQUESTS
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.recipe.probe_options import ProbeName, margin_of
from luthier.record import Record, write_json


@dataclass(frozen=True)
class Probe:
    """An entry of the table.

    Attributes:
        measure: raw values of base and tuned, as JSON.
        report: the content of `probes/PROBE.json`, from them.
        reads: keys of the recipe that decide what is measured.
        asks_examples: whether the run's own examples are asked or scored.
        grades: whether answers are graded for the report.
    """

    measure: Callable[[Subjects], Any]
    report: Callable[[Any, Evidence], dict[str, Any]]
    reads: tuple[str, ...] = ()
    asks_examples: bool = True
    grades: bool = False


def _measure_forgetting(subjects: Subjects) -> Any:
    items = probes.choice_items(subjects.items)
    options, tokenizer = sum(len(item.options) for item in items), subjects.chat.tokenizer
    with subjects.open("base", "forgetting: base", options) as side:
        base = probes.base_forgetting(side.model, tokenizer, subjects.identity, items, side.advance)
    with subjects.open("tuned", "forgetting: tuned", options) as side:
        return {
            "base": base,
            "tuned": probes.option_logprobs(side.model, tokenizer, items, side.advance),
        }


def _report_forgetting(measured: Any, evidence: Evidence) -> dict[str, Any]:
    assert evidence.margin is not None
    items, margin = probes.choice_items(evidence.items), evidence.margin
    return probes.report_forgetting(
        items, measured["base"], measured["tuned"], margin=margin, seed=evidence.seed
    )


def _measure_own_text(subjects: Subjects) -> Any:
    with subjects.open("base", "own text: base", len(REQUESTS)) as side:
        texts = probes.base_own_text(side.model, subjects.chat, subjects.identity, side.advance)
    with subjects.open("tuned", "own text: tuned", len(texts)) as side:
        return {"texts": texts, "tuned": probes.own_text_nll(side.model, texts, side.advance)}


def _report_own_text(measured: Any, evidence: Evidence) -> dict[str, Any]:
    assert evidence.margin is not None
    return probes.report_own_text(
        measured["texts"], measured["tuned"], margin=evidence.margin, seed=evidence.seed
    )


ANSWERS = ("max_new_tokens",)
PROBES: dict[ProbeName, Probe] = {
    "forgetting": Probe(_measure_forgetting, _report_forgetting, reads=("probe_items",), asks_examples=False),
    "own_text": Probe(_measure_own_text, _report_own_text, asks_examples=False),
    "kl": Probe(probes.measure_kl, probes.report_kl),
    "facts": Probe(probes.measure_facts, probes.report_facts, asks_examples=False),
    "bias": Probe(probes.measure_bias, probes.report_bias, reads=ANSWERS, grades=True),
    "refusal": Probe(probes.measure_refusal, probes.report_refusal),
    "memorization": Probe(
        probes.measure_memorization, probes.report_memorization, reads=("canaries", "seed")
    ),
    "robustness": Probe(probes.measure_robustness, probes.report_robustness, reads=ANSWERS, grades=True),
    "overfitting": Probe(probes.measure_overfitting, probes.report_overfitting, reads=ANSWERS, grades=True),
}


def measured_file(name: ProbeName) -> str:
    """Where the raw values of a probe are."""
    return f"answers/{name}.json"


def measure(record: Record, recipe: Recipe, models: Models, show: Show, name: ProbeName) -> None:
    """`answers/PROBE.json`: what base and tuned gave."""
    split = read_split(record)
    subjects = Subjects(
        split=split,
        chat=models.chat,
        identity=models.identity,
        system=recipe.system,
        max_new_tokens=recipe.max_new_tokens or models.longest_answer(split.train),
        items=recipe.probe_items,
        canaries=recipe.canaries,
        seed=recipe.seed,
        open=_opener(recipe, models, show),
    )
    write_json(record / measured_file(name), PROBES[name].measure(subjects))


def report(record: Record, recipe: Recipe, name: ProbeName) -> None:
    """`probes/PROBE.json`, from what was measured."""
    split = read_split(record)

    build = cache(partial(recipe_grader, recipe, split))

    def grade(cases: Sequence[tuple[str, Example]]) -> list[float | None]:
        every = [(answer, example.answer, example) for answer, example in cases]
        return [score.value for score in grade_all(build(), every)]

    margin = margin_of(recipe.gates, name)
    evidence = Evidence(split, margin, recipe.seed, recipe.probe_items, grade)
    measured = record.read_json(measured_file(name), needed_by="probe")
    write_json(record / f"probes/{name}.json", PROBES[name].report(measured, evidence))


def report_failure(record: Record, recipe: Recipe, name: ProbeName, error: Exception) -> str:
    """`probes/PROBE.json` of a probe that did not run to its end; returns why."""
    kind = "" if isinstance(error, LuthierError) else f"{type(error).__name__}: "
    said = error.message if isinstance(error, LuthierError) else str(error)
    reason = f"it did not run to its end: {kind}{' '.join(said.split())[:300]}"
    write_json(
        record / f"probes/{name}.json", probes.failed_report(name, reason, margin_of(recipe.gates, name))
    )
    return reason


def _opener(recipe: Recipe, models: Models, show: Show) -> Callable[..., Any]:
    def seen(example: Example) -> Example:
        return seen_by_tuned([example], recipe.tuned_system)[0]

    @contextlib.contextmanager
    def open_side(which: Which, what: str, total: int) -> Iterator[Side]:
        models.tuned()  # loads with a bar of its own
        with contextlib.ExitStack() as stack:
            advance = stack.enter_context(show.task(what, total))
            if which == "base":
                yield Side(stack.enter_context(models.untuned()), models.chat, recipe.system, advance)
            else:
                yield Side(models.tuned(), models.chat, recipe.system_of("tuned"), advance, seen)

    return open_side
