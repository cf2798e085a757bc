"""Made-up outcomes of the study of claims, for each claim in its three cases: yes, no and open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.claims import points
from bench.claims.claim_facts import FEW, LOOKED_UP, MANY
from bench.claims.claim_narrow import BROAD, CLEAN, NOISY
from bench.claims.claim_unmeasured import PLAIN, REPLAYED
from bench.claims.points import WRONG, Outcome, Outcomes

OTHERS = ("prompt", "few_shot", "retrieval", "scratch")


def scores(share: float, n: int) -> list[float]:
    """The first `share` of n right, so that a larger share is right wherever a smaller one is."""
    return [float(place < round(share * n)) for place in range(n)]


def column(score: Sequence[float], tokens: int = 100, sure: Sequence[float] | None = None) -> dict[str, Any]:
    n = len(score)
    return {
        "score": list(score),
        "confidence": list(sure or [0.5] * n),
        "prompt_tokens": [tokens] * n,
        "in_prompt": [1.0] * n,
    }


def outcome(
    name: str,
    candidates: Mapping[str, Mapping[str, Sequence[Any]]],
    *,
    kinds: Sequence[str | None] | None = None,
    seed: int = 0,
    **more: Any,
) -> Outcome:
    n = len(next(iter(candidates.values()))["score"])
    kinds = kinds or [None] * n
    cases = tuple(f"{name if kinds[0] else ''}{place}" for place in range(n))
    if kinds[0]:  # facts: the same questions in every run
        cases = tuple(f"{kind} {place}" for place, kind in enumerate(kinds))
    return Outcome(name, seed, f"{name} {seed}", "made up", cases, tuple(kinds), candidates, **more)


def several(shares: Mapping[str, float], n: int) -> dict[str, dict[str, Any]]:
    return {name: column(scores(share, n)) for name, share in shares.items()}


def everything(tuned: float, others: float, n: int) -> dict[str, dict[str, Any]]:
    return several({**dict.fromkeys(OTHERS, others), "tuned": tuned}, n)


def spread(centre: float, n: int) -> list[float]:
    """n values around a centre, the same ones every time."""
    return [centre + 0.1 * math.sin(7 * place) for place in range(n)]


def probes(drift: float, forgotten: float, n: int, wobble: float = 0.0) -> dict[str, dict[str, list[float]]]:
    """What tuned lost on n items, more or less; `wobble` is what is not alike between items."""
    own, items = spread(2.0, n), spread(0.5, n)

    def lost(size: float) -> list[float]:
        return [size * (1 + 0.1 * math.cos(i)) + wobble * math.sin(3 * i) for i in range(n)]

    return {
        "own_text": {"base": own, "tuned": [v + d for v, d in zip(own, lost(drift), strict=True)]},
        "forgetting": {"base": items, "tuned": [v - d for v, d in zip(items, lost(forgotten), strict=True)]},
        "refusal": {"base": scores(0.5, n), "tuned": scores(0.5, n)},
    }


def narrow(how: str) -> list[Outcome]:
    tuned, others, noisy, n = {
        "yes": (0.9, 0.5, 0.5, 100),
        "no": (0.5, 0.9, 0.9, 100),
        "open": (0.6, 0.5, 0.5, 10),
    }[how]
    own = everything(tuned, others, n)
    found = [outcome(name, own) for name in ("tickets", CLEAN)]
    found.append(outcome(NOISY, several({"tuned": noisy}, n)))
    return found + [outcome(name, everything(0.5, 0.5, n)) for name in BROAD]


def facts(how: str) -> list[Outcome]:
    tuned, looked, answered, n = {
        "yes": (0.2, 1.0, 1.0, 40),
        "no": (1.0, 0.2, 0.0, 40),
        "open": (0.75, 0.9, 0.6, 8),
    }[how]
    kinds = ["otherwise"] * n + ["not taught"] * n
    own = column([*scores(tuned, n), *scores(1 - answered, n)])
    base = column([*scores(0.0, n), *scores(0.0, n)])
    found = [outcome(name, {"prompt": base, "tuned": own}, kinds=kinds) for name in (FEW, MANY)]
    retrieved = column([*scores(looked, n), *scores(0.0, n)])
    return [*found, outcome(LOOKED_UP, {"retrieval": retrieved}, kinds=kinds)]


def wrong_labels(how: str) -> list[Outcome]:
    n = 10 if how == "open" else 100
    found = []
    for share in WRONG:
        right = 0.9 - {"yes": share, "no": 0.0, "open": share / 2}[how]
        sure = list(np.linspace(0.2, 0.9, n))  # where it is surest the right answers are not
        column_ = column(scores(right, n), sure=sure)
        trained = []
        for place in range(n):
            wrong = place < round(share * n)
            taught = "b" if wrong else "a"
            answer = taught if how == "yes" or (how == "open" and place == 0) else "a"
            confidence = {"yes": 0.9 - 0.001 * place, "no": 0.2 + 0.001 * place, "open": 0.5}[how]
            row = {"case": str(place), "kind": "wrong" if wrong else "right", "taught": taught, "right": "a"}
            trained.append(row | {"answer": answer, "confidence": confidence})
        found.append(outcome(points.category_name(share), {"tuned": column_}, trained=trained))
    return found


def unmeasured(how: str) -> list[Outcome]:
    n, drift, rise = {"yes": (100, 0.4, 0.4), "no": (100, 0.0001, 0.0), "open": (10, 0.0, 0.1)}[how]
    own = several({"prompt": 0.3, "tuned": 0.3 + rise}, n)
    measured = probes(drift, 0.0001 if how == "no" else 0.0, n)
    if how == "no":
        measured["refusal"] = {"base": scores(0.5, 1000), "tuned": scores(0.5, 1000)}
    return [outcome(name, own, probes=measured) for name in (PLAIN, REPLAYED)]


def lora(how: str) -> list[Outcome]:
    n = 8 if how == "open" else 60
    ours, theirs = {"yes": (0.1, 0.5), "no": (0.5, 0.1), "open": (0.1, 0.1)}[how]
    wobble = 0.3 if how == "open" else 0.0
    found = [outcome("tickets", several({"tuned": 0.8}, n), probes=probes(ours, ours / 10, n), rate=1e-3)]
    for factor in points.FULL_FACTORS:
        own = several({"tuned": 0.8 if factor == 1 else 0.5}, n)
        more = {"probes": probes(theirs, theirs / 10, n, wobble), "rate": 1e-4 * factor}
        found.append(outcome(points.full_name(factor), own, **more))
    return found


def prompt(how: str) -> list[Outcome]:
    n, bare, tokens = {"yes": (200, 0.8, 50), "no": (200, 0.5, 99), "open": (10, 0.8, 50)}[how]
    full = everything(0.8, 0.5, n)
    return [
        outcome("tickets", full),
        outcome("tickets, no system prompt", {"tuned": column(scores(bare, n), tokens)}),
    ]


MADE_UP = {
    "narrow": narrow,
    "facts": facts,
    "wrong-labels": wrong_labels,
    "unmeasured": unmeasured,
    "lora": lora,
    "prompt": prompt,
}


def by_name(found: Sequence[Outcome]) -> Outcomes:
    names: dict[str, list[Outcome]] = {}
    for one in found:
        names.setdefault(one.name, []).append(one)
    return names
