"""What a recipe is by default, and cannot be, because of its method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# methods whose model does not write: what may be compared with it, and why nothing else can
COMPARED: dict[str, tuple[str, ...]] = {
    "reward": ("prompt", "scratch", "tuned"),
    "classify": ("prompt", "few_shot", "retrieval", "scratch", "tuned"),
}


def fit_method(values: Any) -> Any:
    """A recipe's raw keys with what its method puts in the place of absent ones.

    A model that does not write has no answers to replay, and probes of its writing say nothing of it. The
    loss of a head says more than how often it is right, also to `train.patience`.
    """
    kind = _kind(values)
    if kind not in COMPARED:
        return values
    train = values.get("train", {})
    if isinstance(train, dict):
        train = {"replay": 0.0, "select": "loss"} | train
    grader = {"grader": "string_check"} if kind == "reward" else {}
    return {"candidates": COMPARED[kind], "probes": (), **grader} | values | {"train": train}


def refuse_misfits(
    kind: str,
    *,
    candidates: Sequence[str],
    probes: Sequence[str],
    replay: float,
    canaries: int,
    stakes: str = "normal",
    confidence: str = "logprob",
) -> None:
    """Refuse what a model that does not write cannot be asked.

    Raises:
        ValueError: the recipe asks for it.
    """
    if kind not in COMPARED:
        return
    misfits = [name for name in candidates if name not in COMPARED[kind]]
    if misfits:
        allowed = ", ".join(COMPARED[kind])
        raise ValueError(
            f"candidates: {', '.join(misfits)} cannot be compared with what method {kind} makes; "
            f"use some of {allowed}"
        )
    if stakes == "high":
        raise ValueError(
            f"stakes: high asks for every probe, and probes ask a model that writes: method {kind} makes "
            "none. Use `stakes: normal`"
        )
    if confidence == "agreement":
        raise ValueError(
            f"confidence: agreement samples answers, and what method {kind} makes writes none: leave it out"
        )
    if probes:
        raise ValueError(f"probes ask a model that writes, and method {kind} makes none: leave them out")
    if replay or canaries:
        key = "train.replay" if replay else "canaries"
        raise ValueError(f"{key} trains on texts, which method {kind} cannot: leave it out")


def _kind(values: Any) -> str:
    method = values.get("method") if isinstance(values, dict) else None
    kind = method.get("kind") if isinstance(method, dict) else method
    return kind if isinstance(kind, str) else getattr(kind, "kind", "")
