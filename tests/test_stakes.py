"""High stakes: what the recipe then asks for, and the gates that the verdict then has more."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_verdict import Made, gate, pair

from luthier.card.model_card import render_card
from luthier.card.numbers import Interval
from luthier.card.reading import read_view
from luthier.card.report import render_report
from luthier.card.slicing import Slice, read_slices
from luthier.errors import RecipeError
from luthier.evidence.evaluation import summarise
from luthier.evidence.review import judge, measure_progress, read_judgements, read_list
from luthier.examples.example import Example, Message
from luthier.grade import build_grader
from luthier.recipe import Gates, dump_recipe, load_recipe, parse_recipe
from luthier.recipe.probe_options import PROBE_NAMES
from luthier.record import Record, write_json, write_jsonl, write_text
from luthier.stats import control_risk, detectable_difference, risk_coverage
from luthier.verdict import decide
from luthier.verdict.stakes import judge_abstention, judge_power, judge_slices, measure_power, worse_slices

RECIPE = {"model": "m", "data": "x.jsonl", "stakes": "high"}
THRESHOLD = {"value": 0.8, "coverage": 0.9, "says": "answers 90% of requests", "reason": None}


def parse(**keys: Any) -> Any:
    return parse_recipe(RECIPE | keys, base=Path("/home/ada"))


# --- the recipe -------------------------------------------------------------------------------------


def test_high_stakes_ask_for_every_probe_and_a_surer_threshold() -> None:
    high, normal = parse(), parse(stakes="normal")
    assert high.probes == PROBE_NAMES
    assert (high.abstain.risk, high.abstain.confidence) == (0.05, 0.95)
    assert normal.probes == ("forgetting", "own_text")
    assert normal.abstain.confidence == 0.9
    own = parse(abstain={"risk": 0.2})
    assert (own.abstain.risk, own.abstain.confidence) == (0.2, 0.95)
    assert parse(abstain={"confidence": 0.8}).abstain.confidence == 0.8


def test_a_probe_left_out_is_refused_before_anything_is_computed() -> None:
    listed = [name for name in PROBE_NAMES if name not in ("kl", "bias")]
    with pytest.raises(RecipeError, match=r"leaves out kl, bias: write `probes: all`, or leave the key out"):
        parse(probes=listed)
    assert parse(probes=list(PROBE_NAMES)).probes == PROBE_NAMES
    assert parse(stakes="normal", probes=listed).probes == tuple(listed)


def test_the_resolved_recipe_says_it_all_and_reads_back(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert yaml.safe_load(dump_recipe(recipe))["stakes"] == "high"


# --- gates ------------------------------------------------------------------------------------------


class High(Made):
    """A record of high stakes in which everything says ship until it is changed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in PROBE_NAMES:
            self.report(name)
        write_json(self.record / "calibration.json", {"abstention": THRESHOLD})
        self.rows = [{"key": str(i), "sampled": i < 20} for i in range(30)]
        self.words = {str(i): "accept" for i in range(30)}
        self.slices: list[dict[str, Any]] = []

    def report(self, name: str, **changes: Any) -> None:
        numbers = {"difference": 0.01, "low": -0.01, "high": 0.02, "margin": None if name == "kl" else 0.05}
        report = {"finding": "within_margin", "reason": f"{name}: fine", "unit": "score", **numbers}
        write_json(self.record / f"probes/{name}.json", report | changes)

    def decide_high(self, stakes: str = "high") -> dict[str, Any]:
        self.decide()  # writes the scores
        scores = self.record.read_json("scores.json")
        worse = [row for row in self.slices if row["total"] > 0 > row["difference"]]
        scores["slices"] = {"paired": self.slices, "worse": worse}
        write_json(self.record / "scores.json", scores)
        recipe = {"model": "m", "data": self.data, "stakes": stakes, "probes": "all"}
        write_text(self.record / "recipe.yaml", yaml.safe_dump(recipe))
        write_jsonl(self.record / "review.jsonl", self.rows)
        done = [{"key": key, "judgement": word, "comment": ""} for key, word in self.words.items()]
        write_jsonl(self.record / "review-done.jsonl", done)
        return decide(self.record, Gates())


@pytest.fixture
def high(tmp_path: Path) -> High:
    return High(tmp_path)


def the_slice(difference: float, p: float | None, value: str = "de", total: float = 0.1) -> dict[str, Any]:
    bounds = {"low": difference - 0.05, "high": difference + 0.05}
    known = {"field": "lang", "value": value, "a": "tuned", "b": "prompt", "n": 20, "total": total}
    return known | bounds | {"difference": difference, "p": p, "p_adjusted": p}


def test_high_stakes_ship_when_all_of_it_is_shown_and_say_so(high: High) -> None:
    high.slices = [the_slice(0.1, 0.2)]
    verdict = high.decide_high()
    assert verdict["decision"] == "ship"
    assert verdict["stakes"] == "high"
    assert verdict["headline"].endswith("Held to high stakes.")
    extra = ["all_probes", "power", "abstention", "slices", "reviewed"]
    assert [g["name"] for g in verdict["gates"]][-5:] == extra
    assert all(g["passed"] is True for g in verdict["gates"])


def test_normal_stakes_decide_as_ever(high: High) -> None:
    high.words = {}
    verdict = high.decide_high("normal")
    assert verdict["decision"] == "ship"
    assert "stakes" not in verdict
    assert not {g["name"] for g in verdict["gates"]} & {"all_probes", "power", "abstention", "reviewed"}


def test_a_probe_that_did_not_run_leaves_it_open_and_a_trend_is_shown(high: High) -> None:
    told = gate(high.decide_high(), "all_probes")
    assert (told["value"], told["threshold"], told["passed"]) == (9, 9, True)
    assert "trends without a margin, which decide nothing: kl +0.01 score" in told["reason"]
    high.report("kl", finding="failed", difference=None, reason="it broke")
    verdict = high.decide_high()
    told = gate(verdict, "all_probes")
    assert (verdict["decision"], told["passed"], told["value"]) == ("inconclusive", None, 8)
    assert told["reason"] == "kl measured nothing: it broke"
    (high.record / "probes/kl.json").unlink()
    assert gate(high.decide_high(), "all_probes")["reason"] == "kl has not run"


def test_power_is_the_chance_to_find_the_gain_again() -> None:
    """By hand: spread 0.5 of a pair over 100 pairs is a standard error of 0.05."""
    half = 1.96 * 0.05
    strong = measure_power(pair("tuned", "prompt", 0.2, 0.001, half=half), 0.02, 1)
    assert strong is not None
    assert strong.detectable == pytest.approx(detectable_difference(100, sd=0.5))
    assert strong.detectable == pytest.approx((1.959964 + 0.841621) * 0.5 / math.sqrt(100 - 1.92), rel=1e-4)
    assert strong.goal == 0.2
    assert strong.power == pytest.approx(0.976, abs=0.003)
    barely = measure_power(pair("tuned", "prompt", 0.1, 0.045, half=half), 0.02, 1)
    assert barely is not None
    assert barely.power == pytest.approx(
        0.51, abs=0.02
    )  # a just significant gain comes again every other time
    none = measure_power(pair("tuned", "prompt", -0.1, 0.9, half=half), 0.02, 1)
    assert none is not None
    assert none.goal == 0.02
    assert measure_power(pair("tuned", "prompt", 0.0, 1.0, half=half), 0.0, 1).goal == 0.02  # type: ignore[union-attr]
    worse = measure_power(pair("tuned", "prompt", -0.1, 0.9, half=0.05), 0.02, 1)
    assert worse is not None and worse.needed is None  # a loss was seen: more examples would only confirm it
    as_good = measure_power(pair("tuned", "prompt", -0.001, 0.9, half=0.01), 0.02, 1)
    assert as_good is not None and as_good.needed is not None
    shared = measure_power(pair("tuned", "prompt", 0.2, 0.001, half=half), 0.02, 4)
    assert shared is not None
    assert shared.power < strong.power


def test_a_gain_that_would_not_be_found_again_leaves_it_open(high: High) -> None:
    high.pairs["few_shot"] = pair("tuned", "few_shot", 0.2, 0.03, half=0.19)
    verdict = high.decide_high()
    told = gate(verdict, "power")
    assert gate(verdict)["passed"] is True
    assert (verdict["decision"], told["passed"]) == ("inconclusive", None)
    assert "find a gain of 20.0% over few_shot with a probability of" in told["reason"]
    spread = 0.38 / 3.92 * 10
    needed = measure_power(high.pairs["few_shot"], 0.02, 4).needed  # type: ignore[union-attr]
    assert needed == pytest.approx((2.4977 + 0.8416) ** 2 * spread**2 / 0.04 + 3.1, abs=2)
    more = math.ceil((needed - 100) / 10) * 10
    whole = math.ceil(more / 0.3 / 10) * 10
    assert (
        f"collect about {more} more test examples (about {whole} in all) for 4 times in 5" in told["reason"]
    )
    high.data["test"] = "/home/ada/test.jsonl"
    assert "in all" not in gate(high.decide_high(), "power")["reason"]


def test_the_weakest_comparison_decides_and_none_is_passed_over() -> None:
    strong, weak = pair("tuned", "prompt", 0.4, 0.001), pair("tuned", "scratch", 0.06, 0.001)
    assert "over scratch" in judge_power([strong, weak], 0.02, None).reason
    unknown = pair("tuned", "few_shot", 0.2, None, half=None)
    assert judge_power([strong, unknown], 0.02, None).passed is None
    assert judge_power([], 0.02, None).passed is None


def calibrated(scores: list[float], risk: float) -> dict[str, Any]:
    from dataclasses import asdict

    confidences = [1 - i / (len(scores) + 1) for i in range(len(scores))]
    found = control_risk(confidences, scores, risk=risk)
    curve = asdict(risk_coverage(confidences, scores))
    return {"abstention": asdict(found) | {"says": "answers"}, "risk_coverage": curve}


def test_abstention_needs_a_threshold_with_its_guarantee(high: High) -> None:
    good = judge_abstention(calibrated([1.0] * 90 + [0.0] * 10, 0.05), 0.05)
    assert (good.passed, good.unit) == (True, "percent")
    assert good.value is not None and good.value > 0.8
    few = judge_abstention(calibrated([1.0] * 30, 0.05), 0.05)
    assert few.passed is None
    assert "even without an error 45 are needed" in few.reason
    unclear = judge_abstention(calibrated([1.0] * 8 + [0.0] + [1.0] * 8 + [0.0] * 60, 0.05), 0.05)
    assert unclear.passed is None
    hopeless = judge_abstention(calibrated([0.0, 1.0] * 100, 0.05), 0.05)
    assert hopeless.passed is False
    assert "even its surest answers are wrong more often than 5.0%" in hopeless.reason
    assert judge_abstention(None, 0.05).passed is None
    write_json(
        high.record / "calibration.json",
        {"abstention": THRESHOLD | {"value": None, "reason": "no"}} | {"risk_coverage": {"points": []}},
    )
    assert high.decide_high()["decision"] == "inconclusive"


def test_a_slice_that_got_worse_fails_high_stakes_and_is_a_note_in_normal_ones(high: High) -> None:
    high.slices = [the_slice(0.2, 0.01, "en"), the_slice(-0.3, 0.02)]
    note = "in the slice lang = de (20 examples) tuned minus prompt is -30.0% [-35.0%, -25.0%], p 0.020"
    verdict = high.decide_high()
    assert (verdict["decision"], gate(verdict, "slices")["passed"]) == ("do_not_ship", False)
    assert gate(verdict, "slices")["reason"] == note
    normal = high.decide_high("normal")
    assert normal["decision"] == "ship"
    assert normal["reasons"][-1] == f"{note}, although over all examples it is +10.0%"


def test_slices_that_are_not_worse_or_not_tested() -> None:
    assert judge_slices([]) is None
    fine = judge_slices([the_slice(-0.1, 0.06), the_slice(0.2, None, "fi")])
    assert fine is not None and fine.passed is True
    assert fine.value == -0.1
    assert "1 slices are too small to test" in fine.reason
    small = judge_slices([the_slice(-0.9, None)])
    assert small is not None and small.passed is None
    both = judge_slices([the_slice(-0.1, 0.01), the_slice(-0.4, 0.01, "fi")])
    assert both is not None and both.value == -0.4
    assert both.reason.endswith("; and 1 more")
    assert worse_slices({}) == []


# --- what a person said -----------------------------------------------------------------------------


def test_the_verdict_waits_until_every_row_is_judged(high: High) -> None:
    del high.words["29"]
    verdict = high.decide_high()
    assert (verdict["decision"], gate(verdict, "reviewed")["passed"]) == ("inconclusive", None)
    assert gate(verdict, "reviewed")["reason"] == "1 of 30 answers are not judged: luthier review RUN"
    high.words["29"] = "unsure"
    assert (
        "1 of 30 answers are not judged, 1 of them unsure" in gate(high.decide_high(), "reviewed")["reason"]
    )
    high.words["29"] = "wrong"
    assert high.decide_high()["decision"] == "ship"


@pytest.mark.parametrize(("wrong", "decision"), [(1, "ship"), (2, "do_not_ship")])
def test_a_person_who_calls_more_wrong_than_may_be_stops_it(high: High, wrong: int, decision: str) -> None:
    """Of 20 drawn at random 1 is the 5% that may be wrong; rows listed for being wrong do not count."""
    high.words |= {str(i): "wrong" for i in range(wrong)} | {str(i): "wrong" for i in range(20, 30)}
    verdict = high.decide_high()
    told = gate(verdict, "reviewed")
    assert verdict["decision"] == decision
    assert (told["value"], told["threshold"]) == (wrong / 20, 0.05)
    assert told["low"] < wrong / 20 < told["high"]
    assert (
        f"of 20 answers drawn at random from those that would be given, a person calls {wrong} wrong"
        in (told["reason"])
    )


def test_no_list_is_no_review(high: High) -> None:
    high.decide_high()
    (high.record / "review.jsonl").unlink()
    told = gate(decide(high.record, Gates()), "reviewed")
    assert (told["passed"], told["reason"]) == (
        None,
        "there is no list of answers to read: luthier review RUN",
    )


def test_the_last_word_counts(tmp_path: Path) -> None:
    record = Record(tmp_path)
    write_jsonl(tmp_path / "review.jsonl", [{"key": "a", "sampled": True}, {"key": "b", "sampled": False}])
    for key, word in (("a", "wrong"), ("b", "unsure"), ("a", "accept"), ("gone", "wrong")):
        judge(record, key, word, "", at="2030-01-01T00:00:00+00:00")  # type: ignore[arg-type]
    progress = measure_progress(read_list(record), read_judgements(record))
    assert (progress.n, progress.judged, progress.unsure, progress.wrong) == (2, 1, 1, 0)
    assert (progress.sampled, progress.sampled_wrong) == (1, 0)
    assert len((tmp_path / "review-done.jsonl").read_text().splitlines()) == 4


# --- card and report --------------------------------------------------------------------------------


def marks(n: int, right: int) -> list[dict[str, Any]]:
    own = {"prompt_tokens": 1, "answer_tokens": 1, "seconds": 0.1, "detail": {}, "reason": None}
    return [own | {"id": f"e{i}", "score": float(i < right)} for i in range(n)]


def sliced(high: High) -> None:
    """Of 30 English tuned has 28 right, prompt 10 and few_shot 12; of 20 German 5, 18 and 2; Finnish is 3."""
    turns = (Message("user", "q"), Message("assistant", "a"))
    languages = ["en"] * 30 + ["de"] * 20 + ["<b>fi|</b>"] * 3
    test = [Example(f"e{i}", turns, "t", i, None, {"lang": lang}) for i, lang in enumerate(languages)]
    tables = {
        name: [*marks(30, en), *marks(20, de), *marks(3, 1)]
        for name, en, de in (("prompt", 10, 18), ("few_shot", 12, 2), ("tuned", 28, 5))
    }
    grader = build_grader("string_check", [], answer_schema=None)
    scores = summarise(tables, test, grader, seed=0, slices=["lang"])
    write_json(high.record / "scores.json", scores)


def test_every_slice_is_held_against_what_is_best_there(high: High) -> None:
    high.decide_high()
    sliced(high)
    view = read_view(high.record)
    found = {row.value: row for row in view.slices}
    assert [row.n for row in view.slices] == [30, 20, 3]
    english, german = found["en"], found["de"]
    assert (english.alternative, english.best, english.tuned) == ("few_shot", 0.4, pytest.approx(28 / 30))
    assert (german.alternative, german.best, german.tuned) == ("prompt", 0.9, 0.25)
    assert german.difference.value == pytest.approx(-0.65)
    paired = high.record.read_json("scores.json")["slices"]["paired"]
    expected = next(row for row in paired if (row["value"], row["b"]) == ("de", "prompt"))
    assert (german.difference.low, german.difference.high) == (expected["low"], expected["high"])
    assert german.p_adjusted == expected["p_adjusted"] < 0.05
    assert [row.finding for row in view.slices] == ["better", "worse", "too small to test"]


def test_a_slice_is_worse_by_its_test_alone() -> None:
    def row(difference: float, p: float | None) -> Slice:
        return Slice("lang", "de", 5, "prompt", 0.5, 0.4, Interval(difference), p)

    assert [row(-0.5, p).is_worse for p in (0.05, 0.06, None)] == [True, False, False]
    assert [row(0.5, p).finding for p in (0.05, 0.06)] == ["better", "no difference shown"]
    known = {"field": "lang", "value": "de", "score": 0.5}
    rows = [known | {"candidate": "prompt", "n": 9}, known | {"candidate": "tuned", "n": 7}]
    (found,) = read_slices({"scores": rows, "paired": []})
    assert (found.n, found.alternative, found.difference.value) == (7, "prompt", None)
    assert read_slices(None) == []


def test_card_and_report_have_a_table_of_slices(high: High) -> None:
    high.decide_high()
    sliced(high)
    view = read_view(high.record)
    card, report = render_card(view), render_report(view)
    (line,) = [line for line in card.splitlines() if line.startswith("| lang = de")]
    assert "| 20 | 90.0% `prompt` | 25.0% | -65.0 points [" in line.replace("\u2212", "-")
    assert line.endswith("| **worse** |")
    (hostile,) = [line for line in card.splitlines() if line.startswith("| lang = &lt;b&gt;fi")]
    assert hostile.replace("\\|", "").count("|") == 8
    assert '<h3 id="slices">By slice</h3>' in report
    assert "<b>fi" not in report and "&lt;b&gt;fi" in report
    assert '<td data-label="Finding" class="outcome failed"><b>worse</b></td>' in report
    assert "scores by slice" not in {item.what for item in view.missing}


def test_card_and_report_say_what_a_person_found(high: High) -> None:
    high.words |= {"0": "wrong", "25": "wrong"}
    high.decide_high()
    view = read_view(high.record)
    assert dict(view.review) == {
        "Answers listed to be read": "30",
        "Judged by a person": "30",
        "Wrong, of those drawn at random": "1 of 20: 5.0% [0.1, 24.9]",
        "Wrong, of all": "2",
    }
    for text in (render_card(view), render_report(view)):
        assert "Read by a person" in text and "1 of 20: 5.0% [0.1, 24.9]" in text
    assert "what a person says of the answers" not in {item.what for item in view.missing}
    high.words = {"1": "unsure"}
    high.decide_high()
    facts = dict(read_view(high.record).review)
    assert facts["Judged by a person"] == "0; 30 left, 1 of them called unsure"
    assert facts["Wrong, of those drawn at random"] == "not measured"
    (high.record / "review.jsonl").unlink()
    bare = read_view(high.record)
    assert bare.review == ()
    assert {"what a person says of the answers", "scores by slice"} <= {item.what for item in bare.missing}
    assert "By slice" not in render_report(bare)
