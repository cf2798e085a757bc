"""Fill a `View` from a run folder. A file that is absent becomes None; one that is broken is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import yaml

from luthier.card.answers import read_comparison, read_confidence
from luthier.card.doubtful import read_doubtful
from luthier.card.failing import read_failures
from luthier.card.missing import find_missing
from luthier.card.numbers import Interval, finite
from luthier.card.origins import read_origins
from luthier.card.plain_text import clean_text
from luthier.card.rewarded import curve_of, read_rewarded
from luthier.card.slicing import read_slices
from luthier.card.trust import calibration_facts, curve_facts, review_facts
from luthier.card.view import (
    Ability,
    Audit,
    Candidate,
    Data,
    Finding,
    Flip,
    Gate,
    Pair,
    Part,
    Probe,
    Source,
    Training,
    View,
)
from luthier.errors import RecordError
from luthier.evidence.review import LIST, measure_progress, read_judgements, read_list
from luthier.record import Record


def read_view(record: Record) -> View:
    """Read everything the card and the report show.

    Raises:
        RecordError: a file of the folder is there but cannot be read.
    """
    recipe_text = _read_text(record, "recipe.yaml")
    recipe = _read_recipe(record, recipe_text)
    scores = _mapping(_read(record, "scores.json"))
    verdict = _mapping(_read(record, "verdict.json"))
    probes = _read_probes(record)
    recommended = _text(verdict.get("recommended")) or None
    candidates = [_candidate(str(k), _mapping(v)) for k, v in _mapping(scores.get("candidates")).items()]
    view = View(
        name=_text(recipe.get("name")) or record.path.resolve().name,
        model=_text(recipe.get("model")),
        recipe=recipe,
        recipe_text=recipe_text,
        environment=_mapping(_read(record, "environment.json")),
        decision=_text(verdict.get("decision")) or None,
        headline=_text(verdict.get("headline")),
        recommended=recommended,
        reasons=[_text(reason) for reason in _list(verdict.get("reasons"))],
        gates=[_gate(_mapping(gate), probes) for gate in _list(verdict.get("gates"))],
        metric=_text(scores.get("metric")) or "score",
        grader=_text(scores.get("grader")),
        candidates=candidates,
        pairs=[_pair(_mapping(pair)) for pair in _list(scores.get("paired"))],
        detectable=finite(scores.get("detectable_difference")),
        level=finite(scores.get("confidence_level")),
        probes=probes,
        training=_read_training(record),
        confidence=None,
        comparison=None,
        audit=_audit(_read(record, "audit.json")),
        data=_data(_read(record, "data/manifest.json"), recipe),
        trust=calibration_facts(_mapping(_clean(_read(record, "calibration.json")))),
        curve=curve_facts(_mapping(_clean(_read(record, "learning_curve.json")))),
        failures=read_failures(_clean(_read(record, "failures.json")), recommended),
        slices=read_slices(scores.get("slices")),
        review=_read_review(record),
        doubtful=read_doubtful(_read(record, "train/doubtful.json")),
    )
    return _with_answers(record, view, _mapping(verdict.get("confident_and_wrong")))


def _read_review(record: Record) -> Sequence[tuple[str, str]]:
    if not (record / LIST).is_file():
        return ()
    return review_facts(measure_progress(read_list(record), read_judgements(record)))


def _with_answers(record: Record, view: View, confident: Mapping[str, Any]) -> View:
    folder = record / "predictions"
    names = [c.name for c in view.candidates]
    names += sorted(p.stem for p in folder.glob("*.jsonl") if p.stem not in names)

    def read(name: str) -> list[dict[str, Any]]:
        file = f"predictions/{name}.jsonl"
        rows = record.read_jsonl(file) if name == PurePath(name).name and (record / file).is_file() else []
        return [_clean(row) for row in rows if isinstance(row, dict)]

    view = replace(
        view,
        comparison=read_comparison(read, names, view.recommended),
        confidence=read_confidence(read, names, view.recommended, confident),
    )
    return replace(view, missing=tuple(find_missing(view)))


def _candidate(name: str, row: Mapping[str, Any]) -> Candidate:
    return Candidate(
        name=name,
        score=_interval(row, "score"),
        n=finite(row.get("n")),
        unscored=finite(row.get("unscored")),
        prompt_tokens=finite(row.get("prompt_tokens")),
        answer_tokens=finite(row.get("answer_tokens")),
        seconds=finite(row.get("seconds")),
        money=finite(_mapping(row.get("cost")).get("money")),
        currency=_text(_mapping(row.get("cost")).get("currency")) or None,
        perplexity=_interval(_mapping(row.get("perplexity")), "value"),
    )


def _pair(row: Mapping[str, Any]) -> Pair:
    return Pair(
        a=_text(row.get("a")),
        b=_text(row.get("b")),
        difference=_interval(row, "difference"),
        p=finite(row.get("p")),
        p_adjusted=finite(row.get("p_adjusted")),
        test=_text(row.get("test")),
        n=finite(row.get("n")),
        wins=_interval(_mapping(row.get("wins")), "rate"),
    )


def _gate(row: Mapping[str, Any], probes: Mapping[str, Probe]) -> Gate:
    name, passed = _text(row.get("name")), row.get("passed")
    unit = _text(row.get("unit"))
    if not unit:
        probe = probes.get(name)
        cost = any(word in name for word in ("cost", "ratio"))
        unit = "ratio" if cost else probe.difference_unit if probe else "points"
    return Gate(
        name=name,
        measured=_interval(row, "value"),
        threshold=finite(row.get("threshold")),
        passed=passed if isinstance(passed, bool) else None,
        reason=_text(row.get("reason")),
        unit=unit,
    )


def _read_probes(record: Record) -> dict[str, Probe]:
    files = sorted((record / "probes").glob("*.json"))
    return {path.stem: _probe(path.stem, _mapping(_read(record, f"probes/{path.name}"))) for path in files}


def _probe(name: str, row: Mapping[str, Any]) -> Probe:
    flips, accuracy = _mapping(row.get("flips")), _mapping(row.get("accuracy"))
    examples = [_mapping(example) for example in _list(row.get("examples"))]
    return Probe(
        name=name,
        unit=_text(row.get("unit")),
        n=finite(row.get("n")),
        base=finite(row.get("base")),
        tuned=finite(row.get("tuned")),
        difference=_interval(row, "difference"),
        lost=finite(flips.get("lost")),
        gained=finite(flips.get("gained")),
        margin=finite(row.get("margin")),
        finding=_text(row.get("finding")) or None,
        reason=_text(row.get("reason")),
        accuracy=(finite(accuracy.get("base")), finite(accuracy.get("tuned"))),
        abilities=[_ability(_mapping(ability)) for ability in _list(row.get("abilities"))],
        flips=[_flip(example) for example in examples if "question" in example],
        examples=[example for example in examples if "text" in example],
        parts=[_part(_mapping(part)) for part in _list(row.get("parts"))],
        worse=_text(row.get("worse")),
        caption=_text(row.get("caption")),
    )


def _ability(row: Mapping[str, Any]) -> Ability:
    return Ability(
        name=_text(row.get("ability")) or _text(row.get("suite")) or "unnamed",
        suite=_text(row.get("suite")),
        n=finite(row.get("n")),
        base=finite(row.get("base")),
        tuned=finite(row.get("tuned")),
        difference=_interval(row, "difference"),
    )


def _part(row: Mapping[str, Any]) -> Part:
    return Part(
        name=_text(row.get("part")) or "unnamed",
        source=_text(row.get("source")),
        unit=_text(row.get("unit")),
        n=finite(row.get("n")),
        base=finite(row.get("base")),
        tuned=finite(row.get("tuned")),
        difference=_interval(row, "difference"),
    )


def _flip(row: Mapping[str, Any]) -> Flip:
    options = [_text(option) for option in _list(row.get("options"))]

    def name(value: Any) -> str:
        index = value if isinstance(value, int) and not isinstance(value, bool) else None
        return options[index] if index is not None and 0 <= index < len(options) else _text(value)

    return Flip(
        kind=_text(row.get("kind")),
        question=_text(row.get("question")),
        options=options,
        reference=name(row.get("reference")),
        base=name(row.get("base")),
        tuned=name(row.get("tuned")),
    )


def _read_training(record: Record) -> Training | None:
    summary = _mapping(_read(record, "train/summary.json"))
    file = "train/metrics.jsonl"
    rows = [r for r in record.read_jsonl(file) if isinstance(r, dict)] if (record / file).is_file() else []
    if not rows and not summary:
        return None

    return Training(
        losses=curve_of(rows, "loss"),
        validation=curve_of(rows, "validation_loss"),
        rates=curve_of(rows, "learning_rate"),
        summary=summary,
        best_step=finite(summary.get("best_step")),
        seconds=finite(summary.get("seconds")),
        rewarded=read_rewarded(record, rows),
    )


def _audit(value: Any) -> Audit | None:
    if not isinstance(value, dict):
        return None

    def silent(column: str) -> list[tuple[str, str]]:
        rows = [_mapping(row) for row in _list(value.get(column))]
        return [(_text(row.get("check")), _text(row.get("reason"))) for row in rows]

    return Audit(
        findings=[_finding(_mapping(row)) for row in _list(value.get("findings"))],
        clean=[check for check, n in _mapping(value.get("summary")).items() if finite(n) == 0],
        failed=silent("failed"),
        skipped=silent("skipped"),
        examples=finite(value.get("examples")),
    )


def _finding(row: Mapping[str, Any]) -> Finding:
    places = [_mapping(place) for place in _list(row.get("examples"))]
    return Finding(
        check=_text(row.get("check")),
        severity=_text(row.get("severity")) or "info",
        message=_text(row.get("message")),
        fix=_text(row.get("fix")),
        places=[place_of(place) for place in places],
    )


def place_of(row: Mapping[str, Any]) -> str:
    """`file:line` with the file's base name, which is what a reader on another machine can use."""
    file, line = _text(row.get("file")), row.get("line")
    name = PurePath(file).name or file
    return f"{name}:{line}" if isinstance(line, int) else name


def _data(value: Any, recipe: Mapping[str, Any]) -> Data | None:
    if not isinstance(value, dict):
        return None
    sources = [_mapping(row) for row in _list(value.get("sources"))]
    sides = {str(name): _mapping(side) for name, side in _mapping(value.get("sides")).items()}
    order: list[str] = [name for name in ("train", "validation", "test") if name in sides]
    order += [name for name in sides if name not in order]
    return Data(
        sources=[
            Source(
                file=PurePath(_text(row.get("file"))).name or _text(row.get("file")),
                sha256=_text(row.get("sha256")),
                format=_text(row.get("format")),
                examples=finite(row.get("examples")),
                left_out=finite(row.get("left_out")),
            )
            for row in sources
        ],
        sides=[
            (name, finite(sides[name].get("examples")), _text(sides[name].get("sha256"))) for name in order
        ],
        method=_text(value.get("method")),
        near_duplicate_clusters=finite(value.get("near_duplicate_clusters")),
        origins=read_origins(_clean(value.get("provenance")), recipe),
        unwanted=[(name, n) for name in order if (n := finite(sides[name].get("unwanted")))],
    )


def _interval(row: Mapping[str, Any], column: str) -> Interval:
    return Interval(finite(row.get(column)), finite(row.get("low")), finite(row.get("high")))


def _read(record: Record, name: str) -> Any:
    return _clean(record.read_json(name)) if (record / name).is_file() else None


def _read_text(record: Record, name: str) -> str:
    try:
        return clean_text((record / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot be read: {error}", where=str(record / name)) from None


def _read_recipe(record: Record, text: str) -> Mapping[str, Any]:
    try:
        return _mapping(_clean(yaml.safe_load(text)))
    except yaml.YAMLError as error:
        raise RecordError(f"not valid YAML: {error}", where=str(record / "recipe.yaml")) from None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): _clean(part) for key, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list) else value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return "" if value is None else str(value)
