"""`python -m bench checks`: faults planted in real data, and what the checks find of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.checks import answers, duplicates, labels, private, suites
from bench.checks.page import write_page
from bench.checks.rates import Tally
from bench.checks.texts import HALVES, TEXT_SETS, Half, TextSet, read_texts, text_sets, without_natural_pairs
from bench.results import append_outcome, read_rows, write_outcomes
from luthier.audit.label_conflict import find_label_conflicts
from luthier.audit.near_duplicate import find_near_duplicate_clusters
from luthier.audit.personal_data import personal_data
from luthier.audit.secret import secrets
from luthier.recipe import digest

SEED = 1


@dataclass(frozen=True)
class Sizes:
    """How much is planted: texts read of a set, pairs of a kind, secrets of a kind, labelled rows."""

    texts: int = 1000
    pairs: int = 50
    private: int = 100
    labels: int = labels.ROWS
    answers: int = answers.ROWS
    suites: int = 40


@dataclass(frozen=True)
class Outcome:
    """What was counted for one check on one set of data.

    Attributes:
        part: the check. data: the set. half: of the data.
        tallies: rows of `Tally`.
        notes: what else was found.
    """

    part: str
    data: str
    half: Half
    settings: str = ""
    seconds: float = 0.0
    tallies: Sequence[Mapping[str, Any]] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What identifies it."""
        return self.part, self.data

    def counted(self) -> list[Tally]:
        """The tallies."""
        return [Tally(**row) for row in self.tallies]


Job = tuple[Outcome, Callable[[], tuple[Sequence[Tally], Mapping[str, Any]]]]
_OF_PAIRS = {
    "exact_duplicate": duplicates.exact_copies,
    "near_duplicate": duplicates.near_copies,
    "label_conflict": duplicates.conflicts,
    "leakage": duplicates.leaked_rows,
}


def main(arguments: list[str]) -> int:
    """Measure what is not in the file yet; the page is written after each."""
    parser = argparse.ArgumentParser(
        prog="python -m bench checks", description="Precision and recall of the checks on planted faults."
    )
    parser.add_argument("--half", action="append", choices=HALVES, help="of the data; default both")
    parser.add_argument("--part", action="append", help="only these checks")
    parser.add_argument(
        "--again", action="store_true", help="also what stands in the file, as the code changed"
    )
    parser.add_argument("--results", type=Path, default=Path("docs/checks.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/checks.md"))
    given = parser.parse_args(arguments)
    halves = given.half or HALVES
    sizes = Sizes()
    settings = digest([asdict(sizes), SEED])[:16]
    found = read_outcomes(given.results, settings)
    measured = set() if given.again else set(found)
    for outcome, measure in jobs(sizes, halves):
        if outcome.key in measured or (given.part and outcome.part not in given.part):
            continue
        started = time.process_time()
        tallies, notes = measure()
        rows = [asdict(tally) for tally in tallies]
        seconds = time.process_time() - started
        done = replace(outcome, settings=settings, seconds=seconds, tallies=rows, notes=notes)
        found[outcome.key] = done
        append_outcome(given.results, done)
        print(f"{outcome.part}, {outcome.data}: {seconds:.1f} s", file=sys.stderr, flush=True)
        _write(given.out, found, sizes)
    write_outcomes(given.results, found.values())
    _write(given.out, found, sizes)
    return 0


def _write(out: Path, found: Mapping[tuple[str, str], Outcome], sizes: Sizes) -> None:
    ordered = [found[outcome.key] for outcome, _ in jobs(sizes, HALVES) if outcome.key in found]
    out.write_text(write_page(ordered), encoding="utf-8")


def read_outcomes(path: Path, settings: str) -> dict[tuple[str, str], Outcome]:
    """What was measured with these settings; the newest of each."""
    found = {}
    for row in read_rows(path):
        if row["settings"] == settings:
            outcome = Outcome(**row)
            found[outcome.key] = outcome
    return found


def jobs(sizes: Sizes, halves: Sequence[Half]) -> Iterator[Job]:
    """Everything that is measured of these halves."""
    for part, measure in _OF_PAIRS.items():
        for given in TEXT_SETS:
            if given.half in halves:
                yield Outcome(part, given.name, given.half), partial(_pairs, measure, given, sizes)
    for part, check in (
        ("near_duplicate", find_near_duplicate_clusters),
        ("label_conflict", find_label_conflicts),
    ):
        yield Outcome(part, "questions of one form", "tuning"), partial(_templates, check)
    for half in halves:
        for part, tallies, detect in (
            ("secret", private.secret_tallies, secrets),
            ("personal_data", private.personal_tallies, personal_data),
        ):
            yield Outcome(part, f"all texts, {half}", half), partial(_private, tallies, detect, half, sizes)
        yield Outcome("answers", answers.SOURCES[half][0], half), partial(_answers, half, sizes)
    for labelled in labels.LABEL_SETS:
        if labelled.half in halves:
            yield Outcome("label_error", labelled.name, labelled.half), partial(_labels, labelled, sizes)
    for hard in labels.HARD_SETS:
        if hard.half in halves:
            yield Outcome("label_error", hard.name, hard.half), partial(_hard, hard, sizes)
    for half in halves:
        yield Outcome("suite_leakage", f"all texts, {half}", half), partial(_suites, half, sizes)


@cache
def _texts(given: TextSet, limit: int) -> tuple[list[str], int]:
    return without_natural_pairs(read_texts(given, limit))


def _pairs(
    measure: Callable[[Sequence[str], int, int], list[Tally]], given: TextSet, sizes: Sizes
) -> tuple[Sequence[Tally], Mapping[str, Any]]:
    texts, left_out = _texts(given, sizes.texts)
    each = sizes.pairs // 2 if measure is duplicates.leaked_rows else sizes.pairs
    return measure(texts, each, SEED), {"texts": len(texts), "left_out": left_out}


def _templates(check: duplicates.Check) -> tuple[Sequence[Tally], Mapping[str, Any]]:
    return duplicates.templates(check), {}


def _all_texts(half: Half, sizes: Sizes) -> list[str]:
    return [text for given in text_sets(half) for text in read_texts(given, sizes.texts)]


def _private(
    tallies: Callable[[Sequence[str], int, int], list[Tally]],
    detect: private.Detector,
    half: Half,
    sizes: Sizes,
) -> tuple[Sequence[Tally], Mapping[str, Any]]:
    texts = _all_texts(half, sizes)
    started = time.process_time()
    natural = private.natural(detect, texts)
    seconds = time.process_time() - started
    found = [*tallies(texts, sizes.private, SEED)]
    found.append(Tally("the texts as they are", len({text for *_, text in natural}), len(texts), fault=False))
    return found, {
        "microseconds": 1e6 * seconds / len(texts),
        "kinds": sorted({kind for kind, *_ in natural}),
    }


def _answers(half: Half, sizes: Sizes) -> tuple[Sequence[Tally], Mapping[str, Any]]:
    return answers.answer_tallies(answers.read_answers(half, sizes.answers), answers.SHARE, SEED), {}


def _suites(half: Half, sizes: Sizes) -> tuple[Sequence[Tally], Mapping[str, Any]]:
    return suites.suite_tallies(_all_texts(half, sizes), sizes.suites, SEED), {}


def _labels(given: labels.LabelSet, sizes: Sizes) -> tuple[Sequence[Tally], Mapping[str, Any]]:
    rows = labels.read_labelled(given, sizes.labels)
    counts = [
        {"rate": rate, "noise": noise, "rows": len(rows), "sides": labels.measure_noise(rows, rate, noise)}
        for noise in labels.NOISES
        for rate in labels.RATES
    ]
    return [], {"counts": counts, "labels": len({label for _, label in rows})}


def _hard(given: labels.LabelSet, sizes: Sizes) -> tuple[Sequence[Tally], Mapping[str, Any]]:
    return [], {"said": labels.refusal_of(labels.read_labelled(given, sizes.labels))}
