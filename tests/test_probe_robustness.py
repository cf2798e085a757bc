"""Robustness: the damage itself, numbers by hand, a model that breaks and one that does not."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_subjects as tiny
from hypothesis import given
from hypothesis import strategies as st

from luthier.chat import ChatFormat
from luthier.examples.example import Message
from luthier.models import LoadedModel
from luthier.probes import measure_robustness, report_robustness
from luthier.probes.perturb import PERTURBATIONS, mistype, perturb
from luthier.probes.robustness import PLAIN, VARIANTS, perturbed
from luthier.probes.subjects import drawn


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


# --- damage -----------------------------------------------------------------------------------------


@given(text=st.text(st.characters(codec="ascii"), max_size=80), seed=st.integers(0, 99))
def test_damage_leaves_the_meaning(text: str, seed: int) -> None:
    key = str(seed)
    for how in PERTURBATIONS:
        assert perturb(text, how, seed=key) == perturb(text, how, seed=key)
    assert re.sub(r"\s", "", perturb(text, "spacing", seed=key)) == re.sub(r"\s", "", text)
    assert perturb(text, "capitals", seed=key).lower() == text.lower()
    typed = perturb(text, "typing errors", seed=key)
    assert re.findall(r"[^A-Za-z]", typed) == re.findall(r"[^A-Za-z]", text)  # digits and signs stay
    firsts = [re.findall(r"\b[A-Za-z]", t) for t in (typed, text)]
    assert firsts[0] == firsts[1]


def test_one_word_in_eight_is_mistyped() -> None:
    text = " ".join(["letter"] * 24 + ["a1"] * 9)
    for seed in range(20):
        words = mistype(text, random.Random(seed)).split()
        assert len(words) == 33
        assert 1 <= sum(word != "letter" for word in words[:24]) <= 3  # a doubled swap can look the same
    assert mistype("a b 12", random.Random(0)) == "a b 12"
    assert mistype("lovely", random.Random(0)) != "lovely"


def test_a_last_full_stop_comes_and_goes() -> None:
    assert perturb("Fine.", "last full stop", seed="") == "Fine"
    assert perturb("Fine", "last full stop", seed="") == "Fine."


def test_only_the_last_request_is_damaged() -> None:
    turns = [("system", "Be kind."), ("user", "first"), ("assistant", "yes"), ("user", "Second one")]
    one = replace(
        tiny.example(0, "", ""), messages=(*(Message(*t) for t in turns), Message("assistant", "Answer"))
    )
    changed = perturbed(one, "capitals")
    assert [m.content for m in changed.messages] == ["Be kind.", "first", "yes", "SECOND ONE", "Answer"]
    assert perturbed(one, PLAIN) is one


# --- numbers ----------------------------------------------------------------------------------------

WIDTH = len(VARIANTS)


def answers(rows: list[str]) -> list[str]:
    """A row per example: `+` is the right answer to a variant, `-` a wrong one."""
    assert all(len(row) == WIDTH for row in rows)
    return ["yes" if mark == "+" else "?" if mark == "?" else "no" for row in rows for mark in row]


def split_of(count: int) -> Any:
    return tiny.split_of([], [(f"Is number {i} lovely today?", "yes") for i in range(count)])


def test_what_is_lost_by_hand() -> None:
    split = split_of(3)
    measured = {
        # as written, then typing errors, small letters, capitals, spacing, last full stop
        "base": answers(["+++++-", "------", "-+++++"]),  # loses 1/5, nothing, nothing: luck is not counted
        "tuned": answers(["++-+-+", "+-----", "++++++"]),  # loses 2/5, all, nothing
    }
    report = report_robustness(measured, tiny.evidence(split))
    assert report["base"] == pytest.approx((1 / 5 + 0 + 0) / 3)
    assert report["tuned"] == pytest.approx((2 / 5 + 1 + 0) / 3)
    assert report["difference"] == pytest.approx((1 / 5 + 1) / 3)
    assert report["flips"] == {"lost": 2 + 5, "gained": 1}
    scores = {row["part"]: (row["base"], row["tuned"]) for row in report["parts"]}
    assert scores["score, as written"] == (pytest.approx(1 / 3), 1.0)
    assert scores["score, capitals"] == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    text = report["examples"][0]["text"]
    first = drawn(split.test, 96)[0]
    assert text == f"small letters: {first.input.lower()}"
    assert (report["examples"][0]["base"], report["examples"][0]["tuned"]) == ("yes", "no")


def test_what_cannot_be_scored_is_left_out_of_both() -> None:
    split = split_of(3)
    base, tuned = ["++++++", "++++++", "++++++"], ["+-----", "+----?", "++++++"]
    report = report_robustness({"base": answers(base), "tuned": answers(tuned)}, tiny.evidence(split))
    assert (report["n"], report["tuned"]) == (2, 0.5)
    assert "1 examples could not be scored" in report["reason"]


def test_a_brittle_model_is_found_and_a_steady_one_is_not() -> None:
    split = split_of(96)
    steady = answers(["++++++"] * 96)
    brittle = answers(["+++-++"] * 96)
    worse = report_robustness({"base": steady, "tuned": brittle}, tiny.evidence(split, 0.05))
    assert (worse["difference"], worse["finding"]) == (pytest.approx(0.2), "worse")
    same = report_robustness({"base": steady, "tuned": steady}, tiny.evidence(split, 0.05))
    assert (same["difference"], same["finding"], same["examples"]) == (0.0, "within_margin", [])
    mended = report_robustness({"base": brittle, "tuned": steady}, tiny.evidence(split, 0.05))
    assert (mended["finding"], mended["flips"]) == ("within_margin", {"lost": 0, "gained": 96})


def test_both_models_are_asked_every_variant(loaded: LoadedModel, chat: ChatFormat) -> None:
    split = split_of(3)
    ones = [chat.sequence([{"role": "user", "content": e.input}], "yes") for e in split.test]
    tuned = tiny.fitted(loaded.model, ones, steps=40)
    models: dict[Any, Any] = {"base": loaded.model, "tuned": tuned}
    measured = measure_robustness(tiny.subjects(models, chat, split))
    assert len(measured["base"]) == len(measured["tuned"]) == 3 * WIDTH
    assert measured["tuned"][::WIDTH] == ["yes"] * 3
    order = drawn(split.test, 96)
    (alone,) = tiny_write(tuned, chat, perturbed(order[1], VARIANTS[1]).input)
    assert measured["tuned"][WIDTH + 1] == alone
    # the base is asked once
    again = measure_robustness(tiny.subjects({"base": None, "tuned": tuned}, chat, split))
    assert again == measured


def tiny_write(model: Any, chat: ChatFormat, text: str) -> list[str]:
    from luthier.probes import Side

    side = Side(model, chat, None, lambda *_, **__: None)
    return side.write([[{"role": "user", "content": text}]], 8)
