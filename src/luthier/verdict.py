"""The verdict: gates over scores and probes, decided from the run folder alone.

`ship` needs every gate passed. A gate that failed for sure makes it `do_not_ship`; one that the
numbers cannot decide makes it `inconclusive`. Undefined is never passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from luthier.errors import RecordError
from luthier.recipe import Gates, load_recipe
from luthier.record import Record
from luthier.stats import examples_needed

ALPHA = 0.05
CONFIDENT = 0.9
CHEAPEST_FIRST = ("scratch", "prompt", "tuned", "few_shot", "retrieval")


@dataclass(frozen=True)
class Gate:
    """One condition of `ship`: passed, failed, or undecided (None)."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    threshold: float | None
    passed: bool | None
    reason: str


def decide(record: Record, gates: Gates) -> dict[str, Any]:
    """The content of `verdict.json`, from `scores.json`, `probes/*.json` and `audit.json`.

    Raises:
        RecordError: the candidates have not been graded.
    """
    scores = record.read_json("scores.json", needed_by="evaluate")
    if not scores["candidates"]:
        raise RecordError("no candidate has been graded", where=str(record.path), fix="luthier evaluate RUN")
    checks: list[Gate] = []
    if "tuned" in scores["candidates"]:
        checks.append(_gain(scores, gates))
        checks += [_probe(record, name) for name in _wanted_probes(record)]
        checks.append(_sound_data(record))
    verdict = _conclude(scores, checks, gates)
    verdict["confident_and_wrong"] = _confident_and_wrong(record, verdict["recommended"])
    return verdict


def _gain(scores: Mapping[str, Any], gates: Gates) -> Gate:
    """Tuned against its best alternative, all comparisons adjusted by Holm."""
    pairs = [pair for pair in scores["paired"] if pair["a"] == "tuned" and pair["difference"] is not None]
    if not pairs:
        return Gate("gain", None, None, None, gates.min_gain, None, "there is no alternative to compare with")
    best = min(pairs, key=lambda pair: pair["difference"])
    other, gain, low, high = best["b"], best["difference"], best["low"], best["high"]
    significant = best["p_adjusted"] is not None and best["p_adjusted"] <= ALPHA and gain > 0
    said = f"tuned minus {other}, its best alternative: {gain:+.1%} [{low:+.1%}, {high:+.1%}], p {_p(best)}"
    if significant and gain >= gates.min_gain:
        return Gate("gain", gain, low, high, gates.min_gain, True, said)
    if _cheap_and_no_worse(scores, other, low, gates):
        ratio = _cost(scores, "tuned") / _cost(scores, other)
        return Gate(
            "gain",
            gain,
            low,
            high,
            -gates.min_gain,
            True,
            f"{said}; no worse, at {ratio:.0%} of its prompt tokens",
        )
    if high < gates.min_gain:
        return Gate(
            "gain", gain, low, high, gates.min_gain, False, f"{said}; not the {gates.min_gain:.1%} asked for"
        )
    if significant or gain <= 0:
        return Gate("gain", gain, low, high, gates.min_gain, False if gain <= 0 else None, said)
    return Gate("gain", gain, low, high, gates.min_gain, None, f"{said}; could be chance")


def _cheap_and_no_worse(scores: Mapping[str, Any], other: str, low: float | None, gates: Gates) -> bool:
    if gates.max_cost_ratio is None or low is None or not _cost(scores, other):
        return False
    return low > -gates.min_gain and _cost(scores, "tuned") / _cost(scores, other) <= gates.max_cost_ratio


def _cost(scores: Mapping[str, Any], candidate: str) -> float:
    return scores["candidates"][candidate]["prompt_tokens"] or 0.0


def _wanted_probes(record: Record) -> list[str]:
    """The probes that the recipe asks for: one that has not run leaves its gate undecided."""
    return list(load_recipe(record / "recipe.yaml").probes)


def _probe(record: Record, name: str) -> Gate:
    try:
        probe = record.read_json(f"probes/{name}.json", needed_by="probe")
    except RecordError:
        return Gate(name, None, None, None, None, None, "this probe has not run")
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
        return Gate("data", len(leaks), None, None, 0, False, leaks[0]["message"])
    if "leakage" in broken:
        return Gate("data", None, None, None, 0, None, "the check for leakage could not run")
    return Gate("data", 0, None, None, 0, True, "no held-out example leaks into training")


def _conclude(scores: Mapping[str, Any], checks: Sequence[Gate], gates: Gates) -> dict[str, Any]:
    failed = [gate for gate in checks if gate.passed is False]
    open_ = [gate for gate in checks if gate.passed is None]
    alternative = _best_alternative(scores)
    if "tuned" not in scores["candidates"]:
        decision, recommended = "inconclusive", alternative
        headline = f"nothing was tuned; of what was measured, use {_named(alternative)}"
    elif failed:
        decision, recommended = "do_not_ship", alternative
        headline = f"do not ship tuned: use {_named(alternative)}"
    elif open_:
        decision, recommended = "inconclusive", alternative
        headline = f"not decided yet; until then use {_named(alternative)}"
    else:
        decision, recommended = "ship", "tuned"
        headline = "ship tuned: " + next(gate.reason for gate in checks if gate.name == "gain")
    reasons = [gate.reason for gate in (*failed, *open_)] or [gate.reason for gate in checks]
    advice = _advice(scores, open_, gates)
    return {
        "decision": decision,
        "recommended": recommended,
        "headline": headline,
        "gates": [asdict(gate) for gate in checks],
        "reasons": [*reasons, *([advice] if advice else [])],
    }


def _best_alternative(scores: Mapping[str, Any]) -> str | None:
    """The best-scored alternative, or a cheaper one that is within its interval."""
    others = {n: c for n, c in scores["candidates"].items() if n != "tuned" and c["score"] is not None}
    if not others:
        return None
    best = max(others, key=lambda name: others[name]["score"])
    ties = {pair["b"] if pair["a"] == best else pair["a"] for pair in scores["paired"] if _is_tie(pair, best)}
    tied = [name for name in CHEAPEST_FIRST if name in others and (name == best or name in ties)]
    return tied[0]


def _is_tie(pair: Mapping[str, Any], best: str) -> bool:
    return best in (pair["a"], pair["b"]) and pair["p_adjusted"] is not None and pair["p_adjusted"] > ALPHA


def _advice(scores: Mapping[str, Any], open_: Sequence[Gate], gates: Gates) -> str | None:
    """How many more test examples would settle an undecided gain."""
    gain = next((gate for gate in open_ if gate.name == "gain"), None)
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return None
    n = scores["candidates"]["tuned"]["n"]
    spread = (gain.high - gain.low) / (2 * 1.96) * math.sqrt(n)
    goal = max(gain.value, gates.min_gain)
    needed = examples_needed(goal, sd=spread) if spread > 0 else None
    if needed is None or needed <= n:
        return None
    return f"about {math.ceil((needed - n) / 10) * 10} more test examples would settle a gain of {goal:.1%}"


def _confident_and_wrong(record: Record, candidate: str | None) -> dict[str, Any] | None:
    """Among the recommended candidate's answers of at least 90% confidence: how many are not right."""
    if candidate is None:
        return None
    rows = record.read_jsonl(f"predictions/{candidate}.jsonl", needed_by="evaluate")
    sure = [
        r
        for r in rows
        if r["confidence"] is not None and r["score"] is not None and r["confidence"] >= CONFIDENT
    ]
    wrong = sum(row["score"] < 1.0 for row in sure)
    return {
        "candidate": candidate,
        "threshold": CONFIDENT,
        "n": len(sure),
        "wrong": wrong,
        "share": wrong / len(sure) if sure else None,
    }


def _named(candidate: str | None) -> str:
    return candidate or "the base model"


def _p(pair: Mapping[str, Any]) -> str:
    p = pair["p_adjusted"]
    return "undefined" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
