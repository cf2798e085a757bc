"""What the report shows of a model's own answers while it learnt from their rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.card.reading import read_view
from luthier.card.report import write_report
from luthier.card.rewarded import Rewarded, read_rewarded
from luthier.record import Record

STEPS: list[dict[str, Any]] = [
    {"step": 1, "loss": 0.5, "reward": 0.25, "kl": 0.0, "length": 40.0, "distinct": 1.0},
    {"step": 2, "loss": 0.7, "reward": 0.5, "kl": 0.75, "length": 30.0, "distinct": 0.5},
    {"step": 2, "validation_score": 0.625, "validation_answer_tokens": 20.0, "validation_reward": None},
]


def write(record: Record, name: str, rows: list[dict[str, Any]]) -> None:
    path = record / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path)
    write(record, "train/metrics.jsonl", STEPS)
    asked = [{"where": "/data/a.jsonl:3", "answer": "first", "reward": 0.1}]
    write(record, "train/rollouts/000001.jsonl", [*asked, asked[0] | {"answer": "second", "reward": 0.9}])
    once = {"where": "/data/a.jsonl:9", "answer": "only once", "reward": 0.2}
    write(record, "train/rollouts/000002.jsonl", [once, asked[0] | {"answer": "later <b>", "reward": None}])
    return record


def panels(found: Rewarded) -> dict[str, tuple[list[Any], list[Any]]]:
    return {panel.name: (list(panel.learnt), list(panel.held_out)) for panel in found.panels}


def test_each_number_is_drawn_by_step_for_both_kinds_of_requests(record: Record) -> None:
    found = read_rewarded(record, STEPS)
    assert found is not None
    assert panels(found) == {
        "Reward": ([(1.0, 0.25), (2.0, 0.5)], []),
        "Score of held-out answers": ([], [(2.0, 0.625)]),
        "Divergence from the start (KL), nats per answer": ([(1.0, 0.0), (2.0, 0.75)], []),
        "Length, tokens": ([(1.0, 40.0), (2.0, 30.0)], [(2.0, 20.0)]),
        "Different answers, share": ([(1.0, 1.0), (2.0, 0.5)], []),
    }


def test_samples_are_the_first_answers_to_requests_that_were_asked_again(record: Record) -> None:
    found = read_rewarded(record, STEPS)
    assert found is not None
    (sample,) = found.samples
    assert (sample.where, sample.steps) == ("a.jsonl:3", (1, 2))
    assert (sample.answers, sample.rewards) == (("first", "later <b>"), (0.1, None))


def test_a_training_without_rewards_shows_none(record: Record) -> None:
    assert read_rewarded(record, [{"step": 1, "loss": 0.5}]) is None


def test_the_page_has_the_charts_and_the_answers_escaped(record: Record) -> None:
    view = read_view(record)
    assert view.training is not None and view.training.rewarded is not None
    page = write_report(record).read_text()
    for text in ("Its own answers while it learnt", "Divergence from the start", "later &lt;b&gt;", "step 2"):
        assert text in page
    assert "only once" not in page and "second" not in page
    write(record, "train/metrics.jsonl", [{"step": 1, "loss": 0.5}])
    assert "Its own answers while it learnt" not in write_report(record).read_text()
