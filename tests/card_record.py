"""A run folder as the stages write it: a stand-in for a run."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier.record import Record, write_json, write_jsonl, write_text

TEAMS = ("billing", "shipping", "accounts", "returns")
SYSTEM = "Read the ticket and answer with JSON."


def write_record(folder: Path) -> Record:
    """A whole run: 5 candidates, 120 held-out tickets, training, probes, audit and a verdict to ship."""
    record = Record(folder)
    _write_data(record)
    _write_answers(record)
    _write_scores(record)
    _write_training(record)
    _write_probes(record)
    write_json(
        record / "verdict.json",
        {
            "decision": "ship",
            "recommended": "tuned",
            "headline": "Tuning gains 9.4 points over few_shot and needs a fifth of its prompt; "
            "no loss was found on public tasks.",
            "gates": [
                gate("gain", (0.094, 0.041, 0.149), 0.02, True, "significantly above few_shot (p = 0.002)"),
                gate("cost", (0.21, None, None), 0.5, True, "96 of 462 prompt tokens"),
                gate("forgetting", (-0.006, -0.0172, 0.0049), 0.02, True, "the loss stays inside the margin"),
                gate("own_text", (0.021, -0.004, 0.046), 0.05, None, "too few texts to decide"),
            ],
            "reasons": ["The gain over few_shot is significant after adjusting for four comparisons."],
            "confident_and_wrong": {"n": 9, "share": 0.075, "threshold": 0.9},
        },
    )
    return record


def gate(name: str, measured: tuple[float | None, ...], *rest: Any) -> dict[str, Any]:
    """A gate from its name, (value, low, high), threshold, passed and reason."""
    keys = ("name", "value", "low", "high", "threshold", "passed", "reason")
    return dict(zip(keys, (name, *measured, *rest), strict=True))


def _write_data(record: Record) -> None:
    recipe = {
        "name": "tickets",
        "model": "smollm2-135m",
        "data": {"train": "/home/ada/tickets.jsonl", "validation": None, "test": None},
        "system": SYSTEM,
        "grader": "json_fields",
        "candidates": ["prompt", "few_shot", "retrieval", "scratch", "tuned"],
        "shots": 4,
        "adapter": {"kind": "lora", "rank": 16, "alpha": 32.0},
        "train": {"epochs": 3, "learning_rate": "auto", "batch_tokens": 2048},
        "seed": 0,
    }
    write_text(record / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))
    write_json(
        record / "environment.json",
        {
            "luthier": "0.1.0",
            "python": "3.11.9",
            "platform": "Linux-6.1-x86_64",
            "cpu": "AMD EPYC",
            "threads": 2,
            "memory_bytes": 16_600_000_000,
            "gpu": None,
            "packages": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.19.1"},
            "git": None,
            "seed": 0,
            "started": "2026-11-21T18:20:00Z",
        },
    )
    sides = {"train": 284, "validation": 40, "test": 120}
    write_json(
        record / "data/manifest.json",
        {
            "sources": [
                {
                    "file": "/home/ada/tickets.jsonl",
                    "sha256": "3f786850e387550fdab836ed7e6dc881de23001b" + "0" * 24,
                    "format": "messages",
                    "examples": 444,
                    "left_out": 6,
                }
            ],
            "sides": {name: {"examples": n, "sha256": f"{n:064x}"} for name, n in sides.items()},
            "method": "by cluster of near-duplicates, stratified by answer",
            "near_duplicate_clusters": 17,
        },
    )
    places = [
        {"file": "tickets.jsonl", "line": line} for line in (12, 48, 103, 104, 211, 212, 213, 300, 301, 302)
    ]
    write_json(
        record / "audit.json",
        {
            "findings": [
                finding(
                    "label_conflict",
                    "error",
                    "2 inputs have different answers",
                    "keep one answer",
                    places[:4],
                ),
                finding(
                    "near_duplicate",
                    "warning",
                    "17 clusters of near-duplicates",
                    "nothing: kept together",
                    places,
                ),
                finding(
                    "personal_data",
                    "warning",
                    "9 e-mail addresses, for example ada@example.org",
                    "mask them",
                    places[4:6],
                ),
                finding("class_imbalance", "info", "billing is 41% of the answers", "", []),
            ],
            "summary": {
                "leakage": 0,
                "label_conflict": 1,
                "secret": 0,
                "near_duplicate": 1,
                "class_imbalance": 1,
                "inconsistent_answers": 0,
                "personal_data": 1,
            },
            "examples": 444,
            "failed": [{"check": "language_mix", "reason": "the detector is not installed"}],
            "skipped": [{"check": "truncation", "reason": "no model is chosen"}],
        },
    )


def finding(
    check: str, severity: str, message: str, fix: str, examples: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "check": check,
        "severity": severity,
        "score": None,
        "message": message,
        "fix": fix,
        "examples": examples,
    }


def _write_answers(record: Record) -> None:
    hit_rates = {"prompt": 0.55, "few_shot": 0.8, "retrieval": 0.79, "scratch": 0.7, "tuned": 0.91}
    tokens = {"prompt": 96, "few_shot": 462, "retrieval": 471, "scratch": None, "tuned": 96}
    for name, rate in hit_rates.items():
        dice = random.Random(name)
        rows = []
        for index in range(120):
            truth = {"team": TEAMS[index % 4], "urgent": index % 3 == 0, "order": f"A-{1000 + index}"}
            given = dict(truth)
            for field in truth:
                if dice.random() > rate:
                    given[field] = {
                        "team": TEAMS[(index + 1) % 4],
                        "urgent": not truth["urgent"],
                        "order": None,
                    }[field]
            marks = {field: 1.0 if given[field] == truth[field] else 0.0 for field in truth}
            rows.append(
                {
                    "id": f"t{index:03d}",
                    "prompt": SYSTEM,
                    "answer": json.dumps(given),
                    "reference": json.dumps(truth),
                    "score": round(sum(marks.values()) / 3, 6),
                    "reason": None,
                    "detail": {"fields": marks},
                    "confidence": round(dice.uniform(0.45, 0.99), 4),
                    "prompt_tokens": tokens[name],
                    "answer_tokens": 24,
                    "seconds": 0.41,
                    "input": f"Order A-{1000 + index} never arrived and I was charged twice. Please fix this"
                    f"{' today' if index % 3 == 0 else ''}.",
                    "file": "/home/ada/tickets.jsonl",
                    "line": 3 * index + 2,
                }
            )
        write_jsonl(record / f"predictions/{name}.jsonl", rows)


def _write_scores(record: Record) -> None:
    rows = {
        "prompt": (0.5472, 0.493, 0.601, 96.0, 0.44),
        "few_shot": (0.8083, 0.764, 0.8491, 462.0, 0.93),
        "retrieval": (0.7917, 0.744, 0.8352, 471.0, 0.97),
        "scratch": (0.6944, 0.646, 0.741, None, 0.004),
        "tuned": (0.9022, 0.868, 0.9321, 96.0, 0.41),
    }
    keys = ("score", "low", "high", "prompt_tokens", "seconds")
    pairs = {"prompt": 0.355, "few_shot": 0.0939, "retrieval": 0.1105, "scratch": 0.2078}
    write_json(
        record / "scores.json",
        {
            "metric": "fields right",
            "grader": "json_fields",
            "candidates": {
                name: dict(zip(keys, row, strict=True)) | {"n": 120, "unscored": 0, "answer_tokens": 24.0}
                for name, row in rows.items()
            },
            "paired": [
                {
                    "a": "tuned",
                    "b": name,
                    "difference": difference,
                    "low": difference - 0.0529,
                    "high": difference + 0.0551,
                    "p": 0.0004,
                    "p_adjusted": 0.002,
                    "test": "paired permutation",
                    "n": 120,
                    "wins": {"better": 70, "same": 20, "worse": 30, "rate": 0.667, "low": 0.58, "high": 0.74},
                }
                for name, difference in pairs.items()
            ],
            "detectable_difference": 0.074,
            "slices": None,
        },
    )


def _write_training(record: Record) -> None:
    dice, rows = random.Random(1), []
    for step in range(1, 106):
        loss = 0.16 + 2.1 * math.exp(-step / 14) + dice.uniform(-0.09, 0.09) * (0.4 + math.exp(-step / 30))
        rate = 3e-4 * min(1, step / 5) * (1 + math.cos(math.pi * step / 105)) / 2
        rows.append(
            {
                "step": step,
                "epoch": step / 35,
                "loss": round(max(0.03, loss), 4),
                "grad_norm": 0.8,
                "learning_rate": rate,
                "tokens": 1800,
                "executed_tokens": 1300,
                "seconds": 8.1,
                "memory_bytes": 3_400_000_000,
            }
        )
        if step % 35 == 0:
            score = {"step": step, "epoch": step // 35, "validation_score": None}
            rows.append(score | {"validation_loss": {35: 0.271, 70: 0.219, 105: 0.224}[step]})
    write_jsonl(record / "train/metrics.jsonl", rows)
    write_json(
        record / "train/summary.json",
        {
            "method": "sft",
            "adapter": {"kind": "lora", "rank": 16, "alpha": 32.0},
            "steps": 105,
            "epochs": 3,
            "examples": 284,
            "tokens": 189_000,
            "trained_tokens": 20_448,
            "executed_tokens": 136_500,
            "seconds": 852.4,
            "tokens_per_second": 221.7,
            "best_step": 70,
            "learning_rate": 3e-4,
            "trainable_parameters": 4_884_480,
            "total_parameters": 139_399_488,
            "adapter_bytes": 19_568_432,
            "peak_memory_bytes": 3_521_000_000,
            "stopped": "all epochs done",
        },
    )


def _write_probes(record: Record) -> None:
    suites = [
        ("commonsense", "HellaSwag", 0.391, 0.384),
        ("physics", "PIQA", 0.642, 0.651),
        ("reading", "BoolQ", 0.588, 0.571),
        ("science", "OpenBookQA", 0.297, 0.288),
    ]
    question = "How do you keep a cutting board from sliding?"
    write_json(
        record / "probes/forgetting.json",
        {
            "probe": "forgetting",
            "n": 400,
            "base": 0.4795,
            "tuned": 0.4735,
            "difference": -0.006,
            "low": -0.0172,
            "high": 0.0049,
            "flips": {"lost": 14, "gained": 11},
            "margin": 0.02,
            "finding": "within_margin",
            "reason": "the interval lies above -2.0 points",
            "unit": "expected accuracy",
            "accuracy": {"base": 0.5125, "tuned": 0.505},
            "abilities": [
                {
                    "ability": a,
                    "suite": s,
                    "n": 100,
                    "base": b,
                    "tuned": t,
                    "difference": t - b,
                    "low": t - b - 0.024,
                    "high": t - b + 0.022,
                }
                for a, s, b, t in suites
            ],
            "examples": [
                {
                    "question": question,
                    "options": ["Put a damp towel under it", "Oil the table"],
                    "reference": 0,
                    "base": 0,
                    "tuned": 1,
                    "kind": "lost",
                },
                {
                    "question": "Is a tomato a fruit?",
                    "options": ["yes", "no"],
                    "reference": "yes",
                    "base": "no",
                    "tuned": "yes",
                    "kind": "gained",
                },
                {
                    "question": "Which of these melts at room temperature?",
                    "options": ["iron", "gallium in a warm hand", "granite"],
                    "reference": 1,
                    "base": 1,
                    "tuned": 0,
                    "kind": "lost",
                },
            ],
        },
    )
    write_json(
        record / "probes/own_text.json",
        {
            "probe": "own_text",
            "n": 60,
            "base": 2.714,
            "tuned": 2.735,
            "difference": 0.021,
            "low": -0.004,
            "high": 0.046,
            "flips": None,
            "margin": 0.05,
            "finding": "not_powered",
            "reason": "60 texts cannot settle a margin of 0.05",
            "unit": "nats per token",
            "examples": [
                {"text": "The committee met on Tuesday to discuss the harbour.", "base": 2.51, "tuned": 2.58}
            ],
        },
    )


def edit_json(record: Record, name: str, **changes: Any) -> None:
    """Change top-level fields of one file of the record."""
    write_json(record / name, record.read_json(name) | changes)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return write_record(tmp_path / "run")
