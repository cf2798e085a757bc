"""The verdict: gates over scores and probes, decided from the run folder alone.

`ship` needs every gate passed. A gate that failed for sure makes it `do_not_ship`; one that the
numbers cannot decide makes it `inconclusive`. Undefined is never passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from luthier.errors import RecordError
from luthier.recipe import Gates, load_recipe
from luthier.recipe.probe_options import ProbeName, margin_of
from luthier.record import Record
from luthier.stats import examples_needed
from luthier.verdict.gate import Gate
from luthier.verdict.stakes import demanded, worse_slices

ALPHA = 0.05
LEAKS = "leaks found"
LEAST_MARGIN = 0.02  # where any gain counts: a margin of 0 can never be shown
SOLVED = 0.8  # lower bound: seen (nearly) always right on a handful of examples is not taken as solved
NEAR_LEAKS = 0.05  # of the test side: fewer near-duplicates of training examples make no gain
SUREST = 4  # the surest quarter of the answers is what nobody would check
Outcome = Literal["better", "cheaper", "undecided", "solved", "failed"]
CONSTANT = "one fixed answer"
ANSWER_CHARACTERS = 60
CHEAPEST_FIRST = ("scratch", "prompt", "tuned", "few_shot", "retrieval")


def decide(record: Record, gates: Gates) -> dict[str, Any]:
    """The content of `verdict.json`, from `scores.json`, `probes/*.json` and `audit.json`.

    Raises:
        RecordError: the candidates have not been graded.
    """
    scores = record.read_json("scores.json", needed_by="evaluate")
    if not scores["candidates"]:
        raise RecordError("no candidate has been graded", where=str(record.path), fix="luthier evaluate RUN")
    recipe = load_recipe(record / "recipe.yaml")  # a probe it asks for leaves its gate open until it ran
    checks: list[Gate] = []
    if "tuned" in scores["candidates"]:
        checks.append(_gain(scores, gates))
        checks += [gate for name in recipe.probes if (gate := _probe(record, name, gates)) is not None]
        checks.append(_sound_data(record))
        if recipe.stakes == "high":
            checks += demanded(record, scores, recipe, gates, _rivals(scores))
    verdict = _conclude(scores, checks, gates)
    gain = next((gate for gate in checks if gate.name == "gain"), None)
    advice = _advice(scores, gain, gates, recipe.split.test if recipe.data.test is None else None)
    if recipe.stakes == "high":
        verdict["stakes"], advice = "high", None  # the gate on power says it
        verdict["headline"] += " Held to high stakes."
    verdict["reasons"] += [advice] if advice else []
    verdict["reasons"] += worse_slices(scores)
    verdict["confident_and_wrong"] = _confident_and_wrong(
        record, verdict["recommended"] or ("tuned" if "tuned" in scores["candidates"] else None)
    )
    return verdict


def _gain(scores: Mapping[str, Any], gates: Gates) -> Gate:
    """Tuned against every alternative; the one that decides is the one that is shown.

    To beat the best alternative is to beat them all: which one is best is not known, only which scored
    best here. Each must be beaten by `min_gain` with significance after Holm, or be matched at a lower cost.
    So must the best fixed answer: to have learnt the form of the answers is no gain.
    """
    judge = scores.get("judge")
    if judge is not None and not judge["gates"]:
        return Gate("gain", None, None, None, gates.min_gain, None, judge["gates_reason"])
    if not _against_tuned(scores):
        return Gate("gain", None, None, None, gates.min_gain, None, "there is no alternative to compare with")
    pairs = sorted(_rivals(scores), key=lambda pair: pair["difference"] or 0.0)
    for pair in pairs:
        if pair["difference"] is None:
            reason = f"{pair['b']} cannot be compared: no held-out example was scored for both"
            return Gate("gain", None, None, None, gates.min_gain, None, reason)
    outcomes = [_outcome(pair, scores, gates) for pair in pairs]
    place = next((outcomes.index(o) for o in ("failed", "solved", "undecided") if o in outcomes), 0)
    pair, outcome = pairs[place], outcomes[place]
    named = f"{pair['b']}, its best alternative" if place == 0 and pair["b"] != CONSTANT else pair["b"]
    if pair["b"] == CONSTANT:
        named += f" ({_shortened(pair['answer'])!r}, whatever is asked)"
    gain, low, high = pair["difference"], pair["low"], pair["high"]
    bounds = "" if low is None or high is None else f" [{low:+.1%}, {high:+.1%}]"
    said = f"tuned minus {named}: {gain:+.1%}{bounds}, p {_p(pair)}; {_why(outcome, pair, scores, gates)}"
    threshold = -gates.min_gain if outcome == "cheaper" else gates.min_gain
    passed = {"failed": False, "solved": False, "undecided": None}.get(outcome, True)
    return Gate("gain", gain, low, high, threshold, passed, said)


def _against_tuned(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [pair for pair in scores["paired"] if pair["a"] == "tuned"]


def _rivals(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Pairs of all that tuned has to beat: the alternatives, and the best fixed answer if one was graded."""
    constant = scores.get("constant")
    fixed = constant and {"a": "tuned", "b": CONSTANT, **constant, "p_adjusted": constant["p"]}
    return [*_against_tuned(scores), *([fixed] if fixed else [])]


def _outcome(pair: Mapping[str, Any], scores: Mapping[str, Any], gates: Gates) -> Outcome:
    """How tuned stands against one alternative; `failed` is for what the interval rules out."""
    low, high, ratio = pair["low"], pair["high"], _cost_ratio(scores, pair["b"])
    if _is_significant(pair) and pair["difference"] >= gates.min_gain:
        return "better"
    if low is None or high is None:
        return "undecided"
    cheap = ratio is not None and gates.max_cost_ratio is not None and ratio <= gates.max_cost_ratio
    if cheap and low > -gates.min_gain:
        return "cheaper"
    if not cheap and _is_solved(scores["candidates"].get(pair["b"]), gates):
        return "solved"
    return "failed" if high < (-gates.min_gain if cheap else gates.min_gain) else "undecided"


def _is_solved(other: Mapping[str, Any] | None, gates: Gates) -> bool:
    """Whether an alternative leaves no room for the gain asked for, on more than a handful of examples."""
    if other is None or other["score"] is None or other.get("low") is None:
        return False
    return bool(1.0 - other["score"] < gates.min_gain and other["low"] >= SOLVED)


def _why(outcome: Outcome, pair: Mapping[str, Any], scores: Mapping[str, Any], gates: Gates) -> str:
    other, goal = pair["b"], f"{gates.min_gain:.1%}"
    if outcome == "better":
        return f"at least the {goal} asked for"
    if outcome == "cheaper":
        return f"no worse, at {_cost_ratio(scores, other):.0%} of its prompt tokens"
    if outcome == "solved":
        already = f"{other} scores {scores['candidates'][other]['score']:.1%} already"
        return f"{already}: no gain of {goal} is possible on these examples"
    return f"a gain of {goal} is ruled out" if outcome == "failed" else _why_open(pair, gates)


def _why_open(pair: Mapping[str, Any], gates: Gates) -> str:
    if _is_significant(pair):
        return f"real, but it may be less than the {gates.min_gain:.1%} asked for"
    if pair["difference"] <= 0:
        return f"no gain was seen, and one of {gates.min_gain:.1%} is not ruled out"
    return "it could be chance"


def _is_significant(pair: Mapping[str, Any]) -> bool:
    return pair["p_adjusted"] is not None and pair["p_adjusted"] <= ALPHA and pair["difference"] > 0


def _cost_ratio(scores: Mapping[str, Any], other: str) -> float | None:
    """Prompt tokens per request of tuned over those of another; None where one is unknown."""
    if other == CONSTANT:
        return None
    ours, theirs = (scores["candidates"][name]["prompt_tokens"] for name in ("tuned", other))
    return ours / theirs if ours is not None and theirs else None


def _probe(record: Record, name: ProbeName, gates: Gates) -> Gate | None:
    """None for a trend: a probe without a margin is shown, and decides nothing."""
    try:
        probe = record.read_json(f"probes/{name}.json", needed_by="probe")
    except RecordError:
        if margin_of(gates, name) is None:
            return None
        return Gate(name, None, None, None, None, None, "this probe has not run")
    if probe["margin"] is None:
        return None
    passed = {"within_margin": True, "worse": False}.get(probe["finding"])
    return Gate(
        name, probe["difference"], probe["low"], probe["high"], probe["margin"], passed, probe["reason"]
    )


def _sound_data(record: Record) -> Gate:
    """No finding that makes the held-out scores untrue."""
    try:
        audit = record.read_json("audit.json", needed_by="check")
    except RecordError:
        return Gate("data", None, None, None, 0, None, "the examples were not checked")
    leaks = [f for f in audit["findings"] if f["check"] == "leakage" and f["severity"] == "error"]
    broken = [entry["check"] for entry in audit.get("failed", [])]
    if leaks:
        return Gate("data", len(leaks), None, None, 0, False, leaks[0]["message"], LEAKS)
    if "leakage" in broken:
        return Gate("data", None, None, None, 0, None, "the check for leakage could not run")
    if near := _near_leaks(record, audit):
        alike, n = near
        said = f"{alike} of {n} held-out examples are nearly the same as training ones"
        if alike > NEAR_LEAKS * n:
            reason = f"{said}: what looks like a gain may be memory; take them out of one side"
            return Gate("data", alike, None, None, math.floor(NEAR_LEAKS * n), None, reason, LEAKS)
        return Gate("data", 0, None, None, 0, True, f"no held-out example leaks into training; {said}", LEAKS)
    return Gate("data", 0, None, None, 0, True, "no held-out example leaks into training", LEAKS)


def _near_leaks(record: Record, audit: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many test examples are near-duplicates of training examples, of how many; None for none."""
    found = [f for f in audit["findings"] if f["check"] == "leakage" and f.get("examples")]
    if not found:
        return None
    train, test = (
        {
            (row["file"], row["line"])
            for row in record.read_jsonl(f"data/{side}.jsonl", needed_by="split")
            if side == "train" or row.get("wanted", True)  # others are never asked
        }
        for side in ("train", "test")
    )
    groups = [{(e["file"], e["line"]) for e in finding["examples"]} for finding in found]
    alike = set().union(*(group & test for group in groups if group & train))
    return (len(alike), len(test)) if alike else None


def _conclude(scores: Mapping[str, Any], checks: Sequence[Gate], gates: Gates) -> dict[str, Any]:
    failed = [gate for gate in checks if gate.passed is False]
    open_ = [gate for gate in checks if gate.passed is None]
    margin = gates.min_gain or LEAST_MARGIN
    alternative = _best_alternative(scores, margin)
    use = f"use {_named(alternative)}"
    if fixed := _better_fixed_answer(scores, alternative, margin):
        alternative, use = None, f"use none of these: always answering {fixed} does better"
    if "tuned" not in scores["candidates"]:
        decision, recommended = "inconclusive", alternative
        headline = f"Nothing was tuned; of what was measured, {use}."
    elif failed:
        decision, recommended = "do_not_ship", alternative
        names = " and ".join(gate.name.replace("_", " ") for gate in failed)
        headline = (
            f"Tuned fails on {names}; {use}."
            if fixed
            else f"Use {_named(alternative)}: tuned fails on {names}."
        )
    elif open_:
        decision, recommended = "inconclusive", alternative
        names = " and ".join(gate.name.replace("_", " ") for gate in open_)
        headline = f"Not decided on {names}; until then {use}."
    else:
        decision, recommended = "ship", "tuned"
        best = min(_against_tuned(scores), key=lambda pair: pair["difference"])
        gains = f"Tuning gains {best['difference']:.1%} over {best['b']}, its best alternative."
        cheaper = f"Tuned is no worse than {best['b']}, its best alternative, and cheaper."
        headline = gains if _is_significant(best) else cheaper
    reasons = [gate.reason for gate in (*failed, *open_)] or [gate.reason for gate in checks]
    return {
        "decision": decision,
        "recommended": recommended,
        "headline": headline,
        "gates": [asdict(gate) for gate in checks],
        "reasons": reasons,
    }


def _better_fixed_answer(scores: Mapping[str, Any], alternative: str | None, margin: float) -> str | None:
    """The best fixed answer, in quotes, where it scores higher than the best alternative by `margin`."""
    constant = scores.get("constant")
    if constant is None or alternative is None:
        return None
    ahead = constant["score"] - scores["candidates"][alternative]["score"]
    return repr(_shortened(constant["answer"])) if ahead >= margin else None


def _shortened(answer: str) -> str:
    return " ".join(answer.split())[:ANSWER_CHARACTERS]


def _best_alternative(scores: Mapping[str, Any], margin: float) -> str | None:
    """The best-scored alternative, or the cheapest that is shown to be no worse than it by `margin`."""
    others = {n: c for n, c in scores["candidates"].items() if n != "tuned" and c["score"] is not None}
    if not others:
        return None
    best = max(others, key=lambda name: others[name]["score"])
    ties = {
        pair["b"] if pair["a"] == best else pair["a"] for pair in scores["paired"] if best in _names(pair)
    }
    as_good = {best, *(name for name in ties if _deficit(scores, best, name) < margin)}
    return next(name for name in CHEAPEST_FIRST if name in others and name in as_good)


def _names(pair: Mapping[str, Any]) -> tuple[str, str]:
    return pair["a"], pair["b"]


def _deficit(scores: Mapping[str, Any], best: str, other: str) -> float:
    """The most that a candidate may be behind the best one (one-sided bound); infinite where unknown."""
    pair = next(pair for pair in scores["paired"] if {best, other} == set(_names(pair)))
    bound = pair.get("most", pair["high"]) if pair["a"] == best else pair.get("least", pair["low"])
    if bound is None:
        return math.inf
    return float(bound if pair["a"] == best else -bound)


def _advice(
    scores: Mapping[str, Any], gate: Gate | None, gates: Gates, test_share: float | None
) -> str | None:
    """How many more examples would settle an undecided gain, 4 times in 5."""
    if gate is None or gate.passed is not None or gate.low is None or gate.high is None:
        return None
    pairs = _rivals(scores)
    n = next(pair["n"] for pair in pairs if pair["difference"] == gate.value)
    goal = max(gate.value or 0.0, gates.min_gain)
    spread = (gate.high - gate.low) / (2 * 1.96) * math.sqrt(n)  # of one pair, clusters included
    needed = examples_needed(goal, sd=spread, alpha=ALPHA / len(pairs)) if spread > 0 else None
    if needed is None or needed <= n:
        return None
    more = math.ceil((needed - n) / 10) * 10
    whole = "" if test_share is None else f" (collect about {math.ceil(more / test_share / 10) * 10} in all)"
    return f"about {more} more test examples would settle a gain of {goal:.1%}{whole}"


def _confident_and_wrong(record: Record, candidate: str | None) -> dict[str, Any] | None:
    """Of the quarter of its answers that the recommended candidate was surest of: how many are wrong."""
    if candidate is None:
        return None
    rows = record.read_jsonl(f"predictions/{candidate}.jsonl", needed_by="evaluate")
    rated = [row for row in rows if row["confidence"] is not None and row["score"] is not None]
    if not rated:
        return None
    threshold = sorted((row["confidence"] for row in rated), reverse=True)[max(0, len(rated) // SUREST - 1)]
    sure = [row for row in rated if row["confidence"] >= threshold]
    wrong = sum(row["score"] < 1.0 for row in sure)
    return {
        "candidate": candidate,
        "threshold": threshold,
        "n": wrong,
        "of": len(sure),
        "share": wrong / len(sure),
    }


def _named(candidate: str | None) -> str:
    return candidate or "the base model"


def _p(pair: Mapping[str, Any]) -> str:
    p = pair["p_adjusted"]
    return "undefined" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
