"""The report's data section: labels that training did not believe, and where the examples come from."""

from __future__ import annotations

import math
from typing import Any

import pytest
from card_record import edit_json, record
from test_card_report import PAYLOAD, render, safe

from luthier.card.doubtful import MOST_SHOWN, read_doubtful
from luthier.record import Record, write_json

__all__ = ["record"]
FILE = "train/doubtful.json"


def row(line: int, **changes: Any) -> dict[str, Any]:
    told = {
        "check": "loss_history",
        "severity": "warning",
        "score": 1.9,
        "message": "labelled 'billing', which training did not believe: 3.0% at last",
        "fix": "read it",
        "examples": [{"file": "/home/ada/tickets.jsonl", "line": line}],
        "input": "my parcel never came",
        "answer": "billing",
        "losses": [-math.log(0.25), None, -math.log(0.03)],
        "usual": [1.234, 0.2, 0.1],
    }
    return told | changes


def write(record: Record, *found: dict[str, Any], **changes: Any) -> None:
    says = f"{len(found)} of 284 training labels are doubtful, by what training made of them"
    whole = {"says": says, "reason": None, "judged": 284, "labels": 4, "first_step": 12, "found": list(found)}
    write_json(record / FILE, whole | changes)


def test_each_has_its_place_its_answer_and_its_losses(record: Record) -> None:
    write(record, row(31))
    text = render(record).text
    assert "1 of 284 training labels are doubtful" in text
    told = "my parcel never came tickets.jsonl:31 billing 25.0% loss 1.39 usually 1.23 "
    assert told + "not seen usually 0.20 3.0% loss 3.51 usually 0.10" in text
    assert "Epoch 1 Epoch 2 Epoch 3" in text
    assert "luthier check FILE --interactive" in text
    assert "/home/ada/tickets.jsonl:31" not in text


def test_many_are_cut_and_it_is_said(record: Record) -> None:
    write(record, *(row(line) for line in range(1, MOST_SHOWN + 5)))
    text = render(record).text
    assert f"tickets.jsonl:{MOST_SHOWN} " in text
    assert f"tickets.jsonl:{MOST_SHOWN + 1} " not in text
    assert f"the {MOST_SHOWN} most surprising are shown" in text


def test_of_many_epochs_some_are_shown(record: Record) -> None:
    write(record, row(31, losses=[float(n) for n in range(11)], usual=[0.5] * 11))
    text = render(record).text
    assert "Epoch 1 Epoch 3 Epoch 6 Epoch 9 Epoch 11" in text
    assert "0.7% loss 5.00 usually 0.50 0.0% loss 8.00" in text


def test_none_found_and_none_judged_are_not_the_same(record: Record) -> None:
    write(record, says="no training label is doubtful, by what training made of them")
    text = render(record).text
    assert "No training label is doubtful, by what training made of them." in text
    assert "Epoch 1" not in text
    write(record, says=None, reason="the answers are no labels")
    text = render(record).text
    assert "Not measured: The answers are no labels." in text
    assert "is doubtful" not in text


def test_a_record_from_before_has_no_such_section(record: Record) -> None:
    assert "Labels that training did not believe" not in render(record).text
    write_json(record / FILE, ["broken"])
    assert "Labels that training did not believe" not in render(record).text


@pytest.mark.parametrize(
    "broken", [{"found": 3}, {"found": [1, {"examples": 2, "losses": "x"}]}, {"judged": "many"}]
)
def test_what_is_broken_is_left_out(broken: dict[str, Any]) -> None:
    found = read_doubtful(broken)
    assert found is not None
    assert [label.epochs for label in found.labels] == [[]] * len(found.labels)


def test_hostile_text_stays_text(record: Record) -> None:
    write(record)
    clean = render(record)
    hostile = safe(PAYLOAD)
    places = [{"file": hostile, "line": 3}]
    write(record, row(1, input=hostile, answer=hostile, examples=places), says=hostile)
    edit_json(record, "data/manifest.json", provenance=[{"source": hostile, "licence": hostile, "train": 3}])
    page = render(record)
    assert page.text.count("alert(1)") >= 5
    assert page.inline == clean.inline
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_provenance_stands_beside_the_files(record: Record) -> None:
    assert "Comes from" not in render(record).text
    rows = [
        {"source": "support mail", "licence": "CC-BY-4.0", "synthetic": False, "train": 200, "test": 77},
        {"source": "drafts", "synthetic": True, "train": 84, "test": 43, "accepted": 60},
        {"file": "/home/ada/more.jsonl", "validation": 40},
    ]
    edit_json(record, "data/manifest.json", provenance=rows)
    text = render(record).text
    assert "support mail CC-BY-4.0 no 200 0 77" in text
    assert "drafts unknown yes, 60 accepted by a person 84 0 43" in text
    assert "more.jsonl unknown not stated 0 40 0" in text
    assert "The licence of 167 of 444 examples is unknown" in text
    assert "a model wrote the answers of 43 of 120 examples" in text
    assert "accepted 67 of 127 synthetic examples" in text
