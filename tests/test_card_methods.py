"""What the card and the report say of runs whose method is not sft: of bases, probes, sides, texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from card_record import edit_json, record

from luthier.card import write_card, write_report
from luthier.card.charts import Bar, draw_intervals
from luthier.card.numbers import Interval
from luthier.record import Record, write_text

__all__ = ["record"]


def change_recipe(record: Record, **changes: Any) -> None:
    recipe = yaml.safe_load((record / "recipe.yaml").read_text(encoding="utf-8")) | changes
    write_text(record / "recipe.yaml", yaml.safe_dump(recipe))


def shown(record: Record) -> list[str]:
    """The texts of both, without tags."""
    card = write_card(record).read_text(encoding="utf-8")
    page = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", write_report(record).read_text("utf-8"), flags=re.S)
    return [" ".join(re.sub(r"<[^>]+>", " ", text).split()) for text in (card, page)]


@pytest.mark.parametrize(
    ("changes", "meaning"),
    [
        ({}, "the base model with the system prompt"),
        ({"system": None}, "the base model as it is"),
        ({"method": "cpt", "system": None}, "the base model as it is"),
        (
            {"method": {"kind": "reward"}},
            "the base model as it is: of the answers, the one that it finds likelier",
        ),
    ],
)
def test_the_base_is_called_what_it_is(record: Record, changes: dict[str, Any], meaning: str) -> None:
    change_recipe(record, **changes)
    edit_json(record, "verdict.json", recommended="prompt")
    card, page = shown(record)
    assert f"Recommended: `prompt`, {meaning}." in card
    assert page.count(meaning) == 2  # as recommended, and in the table
    if not meaning.endswith("prompt"):
        assert "the base model with the system prompt" not in page


@pytest.mark.parametrize("method", ["classify", "reward"])
def test_what_does_not_write_is_not_probed_and_that_is_said(record: Record, method: str) -> None:
    change_recipe(record, method={"kind": method})
    for file in (record / "probes").iterdir():
        file.unlink()
    for text in shown(record):
        said = f"probes ask a model that writes, and what method {method} makes does not"
        assert text.count(said) == 2  # beside the key figure, and in the section
        assert "no probe was run" not in text and "probe was not run" not in text


def test_without_probes_a_model_that_writes_is_an_unknown(record: Record) -> None:
    for file in (record / "probes").iterdir():
        file.unlink()
    for text in shown(record):
        assert "Not measured: no probe was run, so nothing is known about what the model lost." in text
        assert "the forgetting probe was not run" in text


def test_answers_that_should_not_be_given_are_counted(record: Record) -> None:
    assert not any("should not be given" in text for text in shown(record))

    sides = record.read_json("data/manifest.json")["sides"]
    sides["train"]["unwanted"], sides["test"]["unwanted"] = 1, 12
    edit_json(record, "data/manifest.json", sides=sides)
    for text in shown(record):
        assert "On the train side are 1 more example whose answer should not be given." in text
        assert "On the test side are 12 more examples whose answer should not be given." in text
        assert "On the validation side" not in text


def test_texts_have_a_perplexity_and_no_wrong_answers(record: Record) -> None:
    change_recipe(record, method="cpt")
    candidates = record.read_json("scores.json")["candidates"]
    perplexity = {"value": 12.5, "low": 11.25, "high": 14.0}
    candidates["tuned"] |= {"perplexity": perplexity, "prompt_tokens": None}
    edit_json(record, "scores.json", candidates=candidates)
    (record / "failures.json").unlink(missing_ok=True)
    card, page = shown(record)
    assert "perplexity 12.500 [11.250, 14.000]" in page
    for text in (card, page):
        assert "Texts are not right or wrong: each has a probability." in text
        assert "texts are read, not asked" in text


def test_a_bold_note_is_not_written_over_its_dot() -> None:
    ends = []
    for strong in (False, True):
        bar = Bar("scratch", Interval(1.0, 0.9, 1.0), "100.0% [92.4, 100.0]", strong)
        drawn = draw_intervals(
            [bar], key="k", title="t", description="d", axis=lambda v: f"{v:.0%}", span=(0.5, 1.0), width=944
        )
        (place,) = re.findall(r'<circle[^>]*cx="([\d.]+)"', drawn)
        ends.append(944 - float(place))
    assert ends[1] > ends[0] + 10
    assert ends[1] > 20 * 8.2  # its signs at 15px, bold
