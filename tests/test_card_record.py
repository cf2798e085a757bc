"""How the card reads a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from card_record import edit_json, record

from luthier.card.answers import MOST_ROWS, classify, field_scores
from luthier.card.numbers import Interval
from luthier.card.reading import clean_text, read_view
from luthier.errors import RecordError
from luthier.record import Record, write_jsonl

__all__ = ["record"]


def test_reads_every_part_of_a_whole_record(record: Record) -> None:
    view = read_view(record)
    assert (view.name, view.decision, view.recommended, view.metric) == (
        "tickets",
        "ship",
        "tuned",
        "fields right",
    )
    assert [c.name for c in view.candidates] == ["prompt", "few_shot", "retrieval", "scratch", "tuned"]
    assert view.alternative is not None and view.alternative.name == "few_shot"
    assert view.gain is not None and view.gain.difference.value == 0.0939
    assert [g.outcome for g in view.gates] == ["passed", "passed", "passed", "not decided"]
    assert [g.unit for g in view.gates] == ["points", "ratio", "points", "difference in nats per token"]
    assert view.training is not None
    assert (len(view.training.losses), len(view.training.validation), view.training.best_step) == (105, 3, 70)
    assert view.audit is not None and [s for s, _ in view.audit.by_severity()] == ["error", "warning", "info"]
    assert view.data is not None and view.data.size_of("test") == 120
    assert view.comparison is not None and view.comparison.total == 120
    assert {item.what for item in view.missing} == {
        "data check language_mix",
        "data check truncation",
        "bias",
        "refusal",
        "memorization",
        "facts",
        "robustness",
        "overfitting",
        "kl",
        "calibration",
        "scores by slice",
        "what a person says of the answers",
    }


def test_an_empty_folder_reads_as_nothing_measured(tmp_path: Path) -> None:
    view = read_view(Record(tmp_path / "bare"))
    assert view.decision is None and not view.candidates and view.training is None and view.gain is None
    missing = {item.what for item in view.missing}
    assert {"the verdict", "every candidate's score", "training", "forgetting", "own text", "bias"} <= missing
    assert "candidate tuned" not in missing  # nothing says that it was meant to be there


def test_a_broken_file_is_an_error_with_its_place(record: Record) -> None:
    (record / "scores.json").write_text('{"metric": ', encoding="utf-8")
    with pytest.raises(RecordError, match=r"scores\.json: not valid JSON"):
        read_view(record)


def test_a_pair_recorded_the_other_way_round_is_turned(record: Record) -> None:
    pair = {
        "a": "few_shot",
        "b": "tuned",
        "difference": -0.1,
        "low": -0.15,
        "high": -0.02,
        "p": 0.01,
        "test": "t",
        "n": 9,
    }
    edit_json(record, "scores.json", paired=[pair])
    gain = read_view(record).gain
    assert gain is not None
    assert gain.difference == Interval(0.1, 0.02, 0.15)


@pytest.mark.parametrize(
    ("base", "tuned", "kind"),
    [
        (0.5, 1.0, "better"),
        (1.0, 0.5, "worse"),
        (0.5, 0.5, "wrong"),
        (0.0, 0.0, "wrong"),
        (1.0, 1.0, "right"),
        (None, 1.0, "unscored"),
        (0.0, None, "unscored"),
    ],
)
def test_classify(base: float | None, tuned: float | None, kind: str) -> None:
    assert classify(base, tuned) == kind


def test_rows_are_bounded_and_no_kind_crowds_out_another(record: Record) -> None:
    def row(index: int, score: float) -> dict[str, Any]:
        return {"id": str(index), "answer": "x", "reference": "y", "score": score, "input": "q"}

    # 500 better, 3 worse, 400 both wrong: the three worse ones must all be embedded.
    kinds = ["better"] * 500 + ["worse"] * 3 + ["wrong"] * 400
    scores = {"better": (0.0, 1.0), "worse": (1.0, 0.5), "wrong": (0.5, 0.5)}
    for side, name in enumerate(("prompt", "tuned")):
        write_jsonl(
            record / f"predictions/{name}.jsonl", [row(i, scores[k][side]) for i, k in enumerate(kinds)]
        )
    comparison = read_view(record).comparison
    assert comparison is not None
    embedded = [r.kind for r in comparison.rows]
    assert len(embedded) == MOST_ROWS and embedded.count("worse") == 3
    assert abs(embedded.count("better") - embedded.count("wrong")) <= 1
    assert comparison.counts == {"worse": 3, "better": 500, "wrong": 400, "unscored": 0, "right": 0}


def test_confident_and_wrong_lists_only_confident_answers_that_are_not_right(record: Record) -> None:
    confidence = read_view(record).confidence
    assert confidence is not None and (confidence.n, confidence.candidate) == (9, "tuned")
    answers = [answered for *_, answered in confidence.examples]
    assert len(answers) == 9
    assert all((a.confidence or 0) >= 0.9 and (a.score or 0) < 1 for a in answers)


def test_field_scores_takes_only_numbers() -> None:
    assert field_scores({"fields": {"team": 1.0, "urgent": False}}) == {"team": 1.0, "urgent": 0.0}
    assert field_scores({"fields": {"team": 1, "note": "not a score"}}) == {"team": 1.0}
    assert field_scores({"bleu": 0.5}) == {}  # another grader's number is no field
    assert field_scores(None) == {}


def test_unwritable_characters_are_replaced() -> None:
    assert clean_text("a\ud800b\x00c\x1b[31md\te\r\nf") == "a\ufffdb\ufffdc\ufffd[31md\te\nf"
