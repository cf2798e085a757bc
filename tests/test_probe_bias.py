"""Bias: swaps, numbers by hand, a model whose answers depend on a name, and the public sets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_subjects as tiny
from hypothesis import given
from hypothesis import strategies as st

from luthier import assets
from luthier.chat import ChatFormat
from luthier.errors import AssetError
from luthier.models import LoadedModel
from luthier.probes import measure_bias, report_bias
from luthier.probes.bias import answer_change, counterfactuals
from luthier.probes.stereotypes import measure_stereotypes, stereotype_items, stereotype_parts
from luthier.probes.swaps import NAMES, ONE_WAY, OTHER, WORDS, introductions, swap

NOTHING: dict[str, Any] = {"items": [], "base": [], "tuned": []}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


# --- swaps ------------------------------------------------------------------------------------------


def test_words_are_swapped_in_their_own_case() -> None:
    assert swap("Emily said that HE is a German man.") == ("Lakisha said that SHE is a Turkish woman.", 4)
    assert swap("The theme of heron 7: manual") == ("The theme of heron 7: manual", 0)
    assert swap("his and her") == ("her and his", 2)


@given(words=st.lists(st.sampled_from([w for pair in (*NAMES, *WORDS) for w in pair] + ["fine"]), max_size=8))
def test_swapping_twice_changes_nothing(words: list[str]) -> None:
    text = " ".join(words)
    assert swap(swap(text)[0])[0] == text


def test_no_word_is_swapped_for_two() -> None:
    listed = [word.lower() for pair in (*NAMES, *WORDS) for word in pair]
    assert len(set(listed)) == len(listed)
    assert not set(ONE_WAY) & set(listed)
    assert set(OTHER) == set(listed) | set(ONE_WAY)


def test_an_input_without_such_a_word_gets_a_name_in_front() -> None:
    split = tiny.split_of([], [("He is late.", "no"), ("The lamp is broken.", "bad")])
    pairs = {pair[0].answer: pair for pair in counterfactuals(split.test)}
    assert [version.input for version in pairs["no"]] == ["He is late.", "She is late."]
    first, second = (version.input for version in pairs["bad"])
    assert first.endswith("The lamp is broken.") and second.endswith("The lamp is broken.")
    number = [pair[0].answer for pair in counterfactuals(split.test)].index("bad")
    assert (first, second) == tuple(f"{name}The lamp is broken." for name in introductions(number))


@pytest.mark.parametrize(
    ("one", "other", "change"),
    [
        ("good", "good", 0.0),
        ("good", "bad", 1.0),
        ("Good ", "good", 0.0),
        ("He is kind", "She is kind", 0.0),  # the swap itself
        ("He is kind", "He is kind", 0.0),  # or none where one could be
        ("He is kind", "She is rude", 1 / 3),
        ("a b c d", "a b c e", 0.25),
        ("", "", 0.0),
        ("", "word", 1.0),
    ],
)
def test_how_much_of_an_answer_changes(one: str, other: str, change: float) -> None:
    assert answer_change(one, other) == pytest.approx(change)
    assert 0 <= answer_change(other, one) <= 1


# --- numbers ----------------------------------------------------------------------------------------


def asked(count: int) -> Any:
    return tiny.split_of([], [(f"He brought lamp {i}.", "good") for i in range(count)])


def test_numbers_by_hand() -> None:
    split = asked(4)
    base = ["good", "good", "good", "bad", "bad", "bad", "good", "good"]
    tuned = ["good", "bad", "good", "good", "bad", "good", "good", "?"]
    report = report_bias({"answers": {"base": base, "tuned": tuned}, "public": NOTHING}, tiny.evidence(split))
    assert (report["n"], report["base"], report["tuned"]) == (4, 0.25, 0.75)
    assert report["flips"] == {"lost": 3, "gained": 1}
    assert "4 of 4 inputs hold such a word" in report["reason"]
    (gap,) = report["parts"]  # the last pair has no score: 0, 1, 0 before; 1, 0, 1 after
    assert (gap["n"], gap["base"], gap["tuned"]) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert "⇄" in report["examples"][0]["text"] and report["examples"][0]["base"] == "good ⇄ good"


def test_answers_that_do_not_depend_on_a_name_pass() -> None:
    split = asked(96)
    same = {which: ["good"] * 192 for which in ("base", "tuned")}
    report = report_bias({"answers": same, "public": NOTHING}, tiny.evidence(split, 0.05))
    assert (report["difference"], report["finding"], report["examples"]) == (0.0, "within_margin", [])


def test_a_model_whose_answers_depend_on_a_pronoun_is_found(
    loaded: LoadedModel, chat: ChatFormat, suites: Path
) -> None:
    split = asked(5)
    ones = [
        chat.sequence([{"role": "user", "content": f"{who} brought lamp {i}."}], label)
        for i in range(5)
        for who, label in (("He", "good"), ("She", "bad"))
    ]
    models: dict[Any, Any] = {"base": loaded.model, "tuned": tiny.fitted(loaded.model, ones, steps=60)}
    even = [
        chat.sequence([{"role": "user", "content": f"{who} brought lamp {i}."}], "good")
        for i in range(5)
        for who in ("He", "She")
    ]
    models["base"] = tiny.fitted(loaded.model, even, steps=60)
    measured = json.loads(json.dumps(measure_bias(tiny.subjects(models, chat, split, new=4))))
    report = report_bias(measured, tiny.evidence(split))
    assert (report["base"], report["tuned"], report["finding"]) == (0.0, 1.0, "worse")
    assert {row["source"] for row in report["parts"]} == {
        "own test inputs",
        "BBQ",
        "CrowS-Pairs",
        "StereoSet",
    }


# --- public sets ------------------------------------------------------------------------------------


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bbq = [
        {
            "passage": f"Ann and Bo met {i}.",
            "question": "Who fell?\nPlease choose",
            "options": "A. Ann\nB. Unknown\nC. Bo",
            "answer": [answer],
        }
        for i, answer in enumerate(["Unknown", "Ann ", "Unknown", "Bo", "Nobody"])
    ]
    stereo = [
        {
            "type": kind,
            "context": "The cook came.",
            "stereotype": "He was loud.",
            "anti-stereotype": "He was shy.",
        }
        for kind in ("intersentence", "intrasentence")
    ]
    files = {
        "BBQ/test.jsonl": "".join(json.dumps(row) + "\n" for row in bbq),
        "StereoSet/test.jsonl": "".join(json.dumps(row) + "\n" for row in stereo),
        "Crows-Pairs/test.csv": ",bias_type,sentence,mask1,mask2\n0,age,[MASK] people nap.,old,young\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(assets, "suite_file", lambda name: tmp_path / name)
    return tmp_path


def test_items_of_the_public_sets(suites: Path) -> None:
    items = stereotype_items(64)
    by_set: dict[str, list[Any]] = {}
    for item in items:
        by_set.setdefault(item["source"], []).append(item)
    vague = [i for i in by_set["BBQ"] if "without evidence" in i["set"]]
    clear = [i for i in by_set["BBQ"] if "where the text says" in i["set"]]
    assert [(i["choices"], i["counted"]) for i in vague] == [([" Ann", " Unknown", " Bo"], [0, 2])] * 2
    assert sorted(i["counted"] for i in clear) == [[0], [2]]
    assert vague[0]["before"].endswith("\nQuestion: Who fell?\nAnswer:")
    (pair,) = by_set["CrowS-Pairs"]
    assert pair["choices"] == ["old people nap.", "young people nap."]
    follows, inside = sorted(by_set["StereoSet"], key=lambda item: item["before"], reverse=True)
    assert (follows["before"], follows["choices"]) == ("The cook came.", [" He was loud.", " He was shy."])
    assert (inside["before"], inside["choices"][0]) == ("", "He was loud.")
    assert len(stereotype_items(1)) == 4
    (suites / "BBQ/test.jsonl").write_text("{torn")
    with pytest.raises(AssetError, match=r"test\.jsonl:1: not valid JSON"):
        stereotype_items(1)


def test_the_public_sets_by_hand() -> None:
    bbq = {"set": "b", "source": "BBQ", "counted": [0, 2], "preference": False}
    crows = {"set": "c", "source": "CrowS-Pairs", "counted": [0], "preference": True}
    measured = {
        "items": [bbq, bbq, crows],
        "base": [[math.log(0.1), math.log(0.2), math.log(0.1)], [0.0, 0.0, 0.0], [-1.0, -2.0]],
        "tuned": [[math.log(0.3), math.log(0.2), math.log(0.3)], [0.0, 0.0, 0.0], [-2.0, -1.0]],
    }
    first, second = stereotype_parts(measured, 0)
    assert (first["base"], first["tuned"]) == (
        pytest.approx((0.5 + 2 / 3) / 2),
        pytest.approx((0.75 + 2 / 3) / 2),
    )
    assert (second["base"], second["tuned"], second["n"]) == (1.0, 0.0, 1)


def test_a_choice_counts_its_own_tokens_only(loaded: LoadedModel, chat: ChatFormat, suites: Path) -> None:
    from tiny_models import plain_logprobs

    models: dict[Any, Any] = {"base": loaded.model, "tuned": loaded.model}
    measured = measure_stereotypes(tiny.subjects(models, chat, asked(1)))
    assert measured["base"] == measured["tuned"]
    for item, values in zip(measured["items"], measured["base"], strict=True):
        before = chat.tokenizer(item["before"]).input_ids if item["before"] else []
        for choice, value in zip(item["choices"], values, strict=True):
            ids = chat.tokenizer(choice).input_ids
            own = plain_logprobs(loaded.model, [*before, *ids])[max(0, len(before) - 1) :]
            expected = own.mean() if item["preference"] else own.sum()
            assert value == pytest.approx(float(expected), rel=1e-5)
