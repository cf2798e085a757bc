"""Probes: the table of findings by hand, and measurements on a tiny model against plain arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import choice_items as made_up_items

from luthier import assets
from luthier.chat import ChatFormat
from luthier.errors import AssetError
from luthier.forest import logprobs
from luthier.models import LoadedModel, attach_adapter
from luthier.models.kept import kept
from luthier.probes import (
    ChoiceItem,
    base_forgetting,
    base_own_text,
    choice_items,
    judge_loss,
    option_logprobs,
    own_text_nll,
    report_forgetting,
    report_own_text,
)
from luthier.probes.suites import SUITES
from luthier.recipe import Adapter
from luthier.stats import compare

ITEMS = made_up_items(12)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def silent(done: int, detail: str = "") -> None:
    pass


# --- findings ---------------------------------------------------------------------------------------

TABLE = [  # loss, low, high, finding at a margin of 0.02
    (0.000, -0.010, 0.010, "within_margin"),
    (0.010, 0.005, 0.015, "within_margin"),  # real, and small
    (-0.05, -0.070, -0.03, "within_margin"),  # a gain
    (0.000, -0.030, 0.030, "not_powered"),
    (0.010, 0.001, 0.025, "not_powered"),  # real, perhaps too much
    (0.030, -0.010, 0.070, "not_powered"),  # much, perhaps chance
    (0.030, 0.010, 0.050, "worse"),
    (0.020, 0.001, 0.039, "worse"),  # the margin itself is too much
    (0.010, 0.000, 0.020, "not_powered"),  # an interval that ends at the margin does not rule it out
    (None, None, None, "failed"),
    (0.010, None, None, "failed"),
]


@pytest.mark.parametrize(("loss", "low", "high", "finding"), TABLE)
def test_findings_by_hand(loss: float | None, low: float | None, high: float | None, finding: str) -> None:
    assert judge_loss(loss, low, high, 0.02) == finding


@given(loss=st.floats(-1, 1), reach=st.floats(0, 1), margin=st.floats(0.001, 1))
def test_a_loss_of_the_margin_is_never_within_it(loss: float, reach: float, margin: float) -> None:
    finding = judge_loss(loss, loss - reach, loss + reach, margin)
    assert finding == "within_margin" or loss + reach >= margin
    assert finding != "worse" or (loss >= margin and loss - reach > 0)


# --- forgetting -------------------------------------------------------------------------------------


def test_an_option_counts_its_own_tokens_only(loaded: LoadedModel) -> None:
    item = ChoiceItem("physics", "made up", "What boils?", ("water", "a stone"), 0)
    (found,) = option_logprobs(loaded.model, loaded.tokenizer, [item], silent)
    prompt = loaded.tokenizer("Question: What boils?\nAnswer:").input_ids
    for option, value in zip(item.options, found, strict=True):
        ids = loaded.tokenizer(f" {option}", add_special_tokens=False).input_ids
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([[*prompt, *ids]])).logits[0].double()
        steps = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
        assert value == pytest.approx(sum(steps[i, t].item() for i, t in enumerate(ids)), rel=1e-5)


def test_the_score_is_the_chance_of_the_right_option() -> None:
    items = ITEMS[:2]  # options: 3 with the first right, 2 with the second right
    base = [[math.log(0.2), math.log(0.1), math.log(0.1)], [math.log(0.3), math.log(0.1)]]
    tuned = [[math.log(0.1), math.log(0.2), math.log(0.1)], [math.log(0.1), math.log(0.3)]]
    report = report_forgetting(items, base, tuned, margin=0.02, seed=0)
    # right: 0.2/0.4 and 0.1/0.4 before, 0.1/0.4 and 0.3/0.4 after
    assert report["base"] == pytest.approx((0.5 + 0.25) / 2)
    assert report["tuned"] == pytest.approx((0.25 + 0.75) / 2)
    assert report["difference"] == pytest.approx(0.125)
    assert report["flips"] == {"lost": 1, "gained": 1}
    assert report["accuracy"] == {"base": 0.5, "tuned": 0.5}
    assert [(e["kind"], e["base"], e["tuned"], e["reference"]) for e in report["examples"]] == [
        ("lost", "water", "iron", "water"),
        ("gained", "a stone", "a swallow", "a swallow"),
    ]
    assert [(a["ability"], a["n"]) for a in report["abilities"]] == [("physics", 1), ("household", 1)]
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("count", [8, 400])
@pytest.mark.parametrize("margin", [0.005, 0.5])
def test_a_model_that_did_not_change_lost_nothing(loaded: LoadedModel, count: int, margin: float) -> None:
    few = option_logprobs(loaded.model, loaded.tokenizer, ITEMS[:4], silent)
    items, scores = made_up_items(count), [few[i % 4] for i in range(count)]
    report = report_forgetting(items, scores, scores, margin=margin, seed=0)
    assert (report["difference"], report["flips"]) == (0.0, {"lost": 0, "gained": 0})
    assert report["base"] == report["tuned"]
    # identical scores of n items: a loss of up to 1 - 0.05^(1/n) is not excluded (one-sided 95%)
    bound = 1 - 0.05 ** (1 / count)
    assert report["one_sided_low"] == pytest.approx(-bound)
    assert report["finding"] == ("within_margin" if bound < margin else "not_powered")
    assert f"{bound:.1%}" in report["reason"]


def test_a_loss_is_the_same_size_in_the_reports_interval(loaded: LoadedModel) -> None:
    """Direction: tuned minus base in the numbers, and the finding about their negative."""
    base = [[0.0, -3.0, -3.0][: len(item.options)] for item in ITEMS]
    worse = [[-3.0, 0.0, -3.0][: len(item.options)] for item in ITEMS]
    right_first = [item.right == 0 for item in ITEMS]
    items = [item for item, first in zip(ITEMS, right_first, strict=True) if first]
    pick = lambda rows: [row for row, first in zip(rows, right_first, strict=True) if first]  # noqa: E731
    report = report_forgetting(items, pick(base), pick(worse), margin=0.02, seed=0)
    assert report["finding"] == "worse"
    assert report["high"] < 0
    assert report["flips"]["lost"] == len(items)
    back = report_forgetting(items, pick(worse), pick(base), margin=0.02, seed=0)
    assert back["finding"] == "within_margin"
    assert back["difference"] == pytest.approx(-report["difference"])
    assert "nothing was lost" in back["reason"]


def test_the_base_is_measured_once(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = base_forgetting(loaded.model, loaded.tokenizer, "one", ITEMS, silent)

    def measured_again(*_: object) -> None:
        raise RuntimeError("measured")

    monkeypatch.setattr("luthier.probes.forgetting.option_logprobs", measured_again)
    assert base_forgetting(loaded.model, loaded.tokenizer, "one", ITEMS, silent) == first
    for identity, items in (("another", ITEMS), ("one", ITEMS[:-1])):
        with pytest.raises(RuntimeError, match="measured"):
            base_forgetting(loaded.model, loaded.tokenizer, identity, items, silent)


def test_a_base_under_a_disabled_adapter_is_the_base(loaded: LoadedModel) -> None:
    alone = option_logprobs(loaded.model, loaded.tokenizer, ITEMS[:4], silent)
    tuned = attach_adapter(loaded, Adapter(rank=4), seed=0)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(0))
    changed = option_logprobs(tuned, loaded.tokenizer, ITEMS[:4], silent)
    with tuned.disable_adapter():
        assert option_logprobs(tuned, loaded.tokenizer, ITEMS[:4], silent) == alone
    assert changed != alone


def test_what_is_kept_survives_a_torn_file(cache: Path) -> None:
    assert kept("x", {"a": 1}, lambda: [1.5, None]) == [1.5, None]
    (file,) = (cache / "base-results").iterdir()
    file.write_text("[1.5, ")
    assert kept("x", {"a": 1}, lambda: "again") == "again"


# --- own text ---------------------------------------------------------------------------------------


def test_the_loss_of_a_text_is_the_mean_over_its_own_tokens(loaded: LoadedModel, chat: ChatFormat) -> None:
    texts = base_own_text(loaded.model, chat, "tiny", silent)
    rows = logprobs(loaded.model, [[*text["prompt"], *text["ids"]] for text in texts], share=False)
    for text, row in zip(texts, rows, strict=True):
        own = row[len(text["prompt"]) - 1 :]
        assert len(own) == len(text["ids"])
        assert text["nll"] == pytest.approx(-own.mean().item(), rel=1e-5)
        assert text["text"] == chat.decode(text["ids"])
    assert own_text_nll(loaded.model, texts) == pytest.approx([text["nll"] for text in texts], rel=1e-6)


def test_the_base_writes_once(loaded: LoadedModel, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    first = base_own_text(loaded.model, chat, "one", silent)

    def written_again(*_: object, **__: object) -> None:
        raise RuntimeError("written")

    monkeypatch.setattr("luthier.own_words.generate", written_again)
    assert base_own_text(loaded.model, chat, "one", silent) == first
    with pytest.raises(RuntimeError, match="written"):
        base_own_text(loaded.model, chat, "another", silent)


def texts_of(losses: Sequence[float]) -> list[dict[str, object]]:
    return [{"prompt": [1], "ids": [2], "text": f"text {i}", "nll": loss} for i, loss in enumerate(losses)]


def test_a_rise_is_a_loss() -> None:
    base = [2.0 + 0.1 * (i % 5) for i in range(24)]
    tuned = [loss + 0.3 + 0.02 * (i % 3) for i, loss in enumerate(base)]
    report = report_own_text(texts_of(base), tuned, margin=0.1, seed=0)
    expected = compare(tuned, base, seed=0)
    assert report["difference"] == pytest.approx(0.32)
    assert (report["low"], report["high"], report["p"]) == (expected.low, expected.high, expected.p)
    assert report["finding"] == "worse"
    assert (report["n"], report["flips"], report["unit"]) == (24, None, "nats per token")
    assert {int(e["text"].split()[1]) % 3 for e in report["examples"]} == {2}  # the largest rises
    assert report_own_text(texts_of(base), tuned, margin=0.69, seed=0)["finding"] == "within_margin"
    assert report_own_text(texts_of(tuned), base, margin=0.1, seed=0)["finding"] == "within_margin"


@pytest.mark.parametrize("losses", [[], [2.0], [2.0, 2.0, 2.0]])
def test_an_undefined_difference_is_a_failed_probe_not_a_zero(losses: list[float]) -> None:
    report = report_own_text(texts_of(losses), losses, margin=0.1, seed=0)
    assert (report["finding"], report["low"], report["high"]) == ("failed", None, None)
    assert report["base"] == (2.0 if losses else None)
    json.dumps(report, allow_nan=False)


# --- public items -----------------------------------------------------------------------------------


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the files of the suites asset: ten items a suite, of two shapes."""
    for name in SUITES.values():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "question": f"{name} {i}?",
                "options": f"A. yes {i}\nB. no\nC. B. minor",
                "answer": f"A. yes {i}",
            }
            for i in range(9)
        ]
        rows.append(
            {"passage": "It rains.", "question": "Wet?", "options": "A. yes\nB. no", "answer": "B. no"}
        )
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(assets, "suite_file", lambda name: tmp_path / name)
    return tmp_path


def test_items_come_evenly_from_every_suite_and_are_the_same_for_everybody(suites: Path) -> None:
    items = choice_items(10)
    counts = [sum(item.ability == ability for item in items) for ability in SUITES]
    assert counts == [3, 3, 2, 2]
    for name in SUITES.values():  # the order of the file does not matter
        lines = (suites / name).read_text().splitlines()
        (suites / name).write_text("\n".join(reversed(lines)) + "\n")
    assert choice_items(10) == items
    assert set(choice_items(8)) <= set(items)


def test_a_row_becomes_a_question_with_options(suites: Path) -> None:
    items = choice_items(40)
    assert len(items) == 40
    (wet,) = [item for item in items if item.suite == "PIQA" and "Wet" in item.question]
    assert wet.text == "Question: It rains. Wet?\nAnswer:"
    assert (wet.options, wet.right) == (("yes", "no"), 1)


@pytest.mark.parametrize(
    "row",
    [
        {"options": "A. yes\nB. no", "answer": "C. maybe"},  # the answer is not among them
        {"options": "A. yes\nB. yes", "answer": "A. yes"},  # which one is right?
        {"options": "A. yes", "answer": "A. yes"},
    ],
)
def test_a_row_without_one_right_option_is_left_out(suites: Path, row: dict[str, str]) -> None:
    path = suites / SUITES["science facts"]
    path.write_text(json.dumps({"question": "odd?", **row}) + "\n" + path.read_text())
    assert not [item for item in choice_items(44) if item.question == "odd?"]


def test_a_torn_suite_names_its_line(suites: Path) -> None:
    path = suites / SUITES["science facts"]
    path.write_text(path.read_text() + "{torn\n")
    with pytest.raises(AssetError, match=r"test\.jsonl:11: not valid JSON"):
        choice_items(8)
