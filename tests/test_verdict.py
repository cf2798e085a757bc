"""The verdict on records made by hand: what ships, what does not, and what cannot be decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier.errors import RecordError
from luthier.recipe import Gates
from luthier.record import Record, write_json, write_jsonl, write_text
from luthier.stats import examples_needed
from luthier.verdict import decide

SCORES = {"prompt": 0.5, "few_shot": 0.7, "retrieval": 0.68, "scratch": 0.6, "tuned": 0.9}
TOKENS = {"prompt": 100, "few_shot": 400, "retrieval": 420, "scratch": None, "tuned": 100}


def pair(
    a: str, b: str, difference: float | None, p: float | None, half: float | None = 0.05
) -> dict[str, Any]:
    known = difference is not None and half is not None
    return {
        "a": a,
        "b": b,
        "difference": difference,
        "low": difference - half if known else None,  # type: ignore[operator]
        "high": difference + half if known else None,  # type: ignore[operator]
        "p": p,
        "p_adjusted": p,
        "test": "paired_permutation",
        "n": 100,
    }


class Made:
    """A record to decide on; everything in it says ship until it is changed."""

    def __init__(self, folder: Path) -> None:
        self.record = Record(folder)
        self.scores: dict[str, float | None] = dict(SCORES)
        self.tokens: dict[str, int | None] = dict(TOKENS)
        self.pairs = {
            name: pair("tuned", name, 0.9 - SCORES[name], 0.0001) for name in SCORES if name != "tuned"
        }
        self.ties: set[frozenset[str]] = set()
        self.answers: dict[str, list[tuple[float | None, float | None]]] = {}
        self.probes = ["forgetting", "own_text"]
        self.data: dict[str, str] = {"train": "/home/ada/tickets.jsonl"}
        for name in self.probes:
            self.probe(name, "within_margin")
        self.audit([])

    def probe(self, name: str, finding: str) -> None:
        numbers = {"difference": -0.001, "low": -0.01, "high": 0.008, "margin": 0.02}
        write_json(
            self.record / f"probes/{name}.json",
            {"finding": finding, "reason": f"{name}: {finding}", **numbers},
        )

    def audit(self, findings: list[dict[str, Any]], failed: tuple[str, ...] = ()) -> None:
        broken = [{"check": name, "reason": "it broke"} for name in failed]
        write_json(self.record / "audit.json", {"findings": findings, "failed": broken})

    def decide(self, **gates: Any) -> dict[str, Any]:
        write_text(
            self.record / "recipe.yaml",
            yaml.safe_dump({"model": "m", "data": self.data, "probes": self.probes}),
        )
        names = [name for name in self.scores if name != "tuned"]
        others = [
            pair(a, b, 0.0, 1.0, half=0.015) if {a, b} in self.ties else pair(a, b, 0.01, 0.5)
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        ]
        ours = [self.pairs[name] for name in names] if "tuned" in self.scores else []
        candidates = {
            name: {"score": score, "n": 100, "prompt_tokens": self.tokens[name]}
            for name, score in self.scores.items()
        }
        write_json(self.record / "scores.json", {"candidates": candidates, "paired": [*ours, *others]})
        for name in self.scores:
            rows = [{"score": s, "confidence": c} for s, c in self.answers.get(name, ())]
            write_jsonl(self.record / f"predictions/{name}.jsonl", rows)
        return decide(self.record, Gates(**gates))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def gate(verdict: dict[str, Any], name: str = "gain") -> dict[str, Any]:
    (found,) = [gate for gate in verdict["gates"] if gate["name"] == name]
    return found


def test_a_clear_gain_with_nothing_lost_ships(made: Made) -> None:
    verdict = made.decide()
    assert (verdict["decision"], verdict["recommended"]) == ("ship", "tuned")
    assert [g["name"] for g in verdict["gates"]] == ["gain", "forgetting", "own_text", "data"]
    assert all(g["passed"] is True for g in verdict["gates"])
    gain = gate(verdict)
    assert (gain["value"], gain["threshold"]) == (pytest.approx(0.2), 0.02)
    assert (gain["low"], gain["high"]) == pytest.approx((0.15, 0.25))
    assert "few_shot, its best alternative" in gain["reason"]
    assert "20.0% over few_shot" in verdict["headline"]


def test_a_gain_that_is_ruled_out_is_not_shipped(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", 0.01, 0.01, half=0.008)  # real, below 0.02 for sure
    verdict = made.decide()
    assert (verdict["decision"], verdict["recommended"]) == ("do_not_ship", "few_shot")
    assert gate(verdict)["passed"] is False
    assert "a gain of 2.0% is ruled out" in verdict["reasons"][0]


@pytest.mark.parametrize(("calibrated", "decision"), [(True, "ship"), (False, "inconclusive")])
def test_an_uncalibrated_judge_decides_nothing(made: Made, calibrated: bool, decision: str) -> None:
    made.decide()
    scores = made.record.read_json("scores.json")
    scores["judge"] = {"gates": calibrated, "gates_reason": "the judge is not calibrated: no labels"}
    write_json(made.record / "scores.json", scores)
    verdict = decide(made.record, Gates())
    assert verdict["decision"] == decision
    assert calibrated or gate(verdict)["reason"] == "the judge is not calibrated: no labels"


def test_a_real_loss_is_not_shipped(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", -0.2, 0.0001)
    assert made.decide()["decision"] == "do_not_ship"


@pytest.mark.parametrize("gain", [0.04, 0.0, -0.02])
def test_what_could_be_chance_is_undecided_whatever_its_sign(made: Made, gain: float) -> None:
    """An interval from a loss to more than the asked-for gain rules out neither."""
    made.pairs["few_shot"] = pair("tuned", "few_shot", gain, 0.3, half=0.08)
    verdict = made.decide()
    assert (verdict["decision"], verdict["recommended"]) == ("inconclusive", "few_shot")
    assert gate(verdict)["passed"] is None


def test_advice_tells_how_many_more_examples_would_settle_it(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", 0.04, 0.3, half=0.08)
    sd = 0.08 / 1.96 * 10  # half-width of 100 examples
    needed = examples_needed(0.04, sd=sd, alpha=0.05 / 4)
    assert needed is not None
    more = -(-(needed - 100) // 10) * 10
    whole = -(-more // 3)  # at test: 0.3, in tens
    advice = made.decide()["reasons"][-1]
    assert advice.startswith(f"about {more} more test examples would settle a gain of 4.0%")
    told = int(advice.split("collect about ")[1].split()[0])
    assert told == pytest.approx(whole * 10, abs=10)
    made.data["test"] = "/home/ada/test.jsonl"  # the user's own side: the share says nothing
    assert "collect" not in made.decide()["reasons"][-1]


def test_advice_for_no_gain_is_about_the_gain_asked_for(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", -0.02, 0.5, half=0.08)
    assert "settle a gain of 5.0%" in made.decide(min_gain=0.05)["reasons"][-1]


def test_significant_but_perhaps_too_small_is_undecided(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", 0.03, 0.001, half=0.025)
    verdict = made.decide(min_gain=0.04)
    assert verdict["decision"] == "inconclusive"
    assert "real, but it may be less than the 4.0% asked for" in gate(verdict)["reason"]


def test_every_alternative_must_be_beaten_not_only_the_best_scored(made: Made) -> None:
    """A noisier comparison than the closest one: which alternative is best is not known."""
    made.pairs["scratch"] = pair("tuned", "scratch", 0.3, 0.2, half=0.5)
    verdict = made.decide()
    assert verdict["decision"] == "inconclusive"
    assert gate(verdict)["reason"].startswith("tuned minus scratch: +30.0%")


def test_an_alternative_that_cannot_be_compared_leaves_it_open(made: Made) -> None:
    made.pairs["retrieval"] = pair("tuned", "retrieval", None, None)
    made.scores["retrieval"] = None
    verdict = made.decide()
    assert verdict["decision"] == "inconclusive"
    assert "retrieval cannot be compared" in verdict["reasons"][0]
    assert [gate(verdict)[key] for key in ("value", "low", "high")] == [None] * 3


def test_a_difference_without_interval_or_p_is_undecided(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", 0.2, None, half=None)
    verdict = made.decide()
    assert verdict["decision"] == "inconclusive"
    assert (gate(verdict)["value"], gate(verdict)["low"]) == (0.2, None)
    assert "p undefined" in gate(verdict)["reason"]


# --- cheaper ----------------------------------------------------------------------------------------


def test_no_worse_at_a_lower_cost_ships_when_asked_for(made: Made) -> None:
    for name in ("few_shot", "retrieval"):  # 100 tokens against 400 and 420
        made.pairs[name] = pair("tuned", name, 0.005, 0.7, half=0.015)
    assert made.decide(min_gain=0.03)["decision"] == "do_not_ship"
    verdict = made.decide(min_gain=0.03, max_cost_ratio=0.3)
    assert (verdict["decision"], verdict["recommended"]) == ("ship", "tuned")
    assert gate(verdict)["threshold"] == -0.03
    assert "no worse, at 25% of its prompt tokens" in gate(verdict)["reason"]
    assert "no worse than few_shot" in verdict["headline"]
    assert made.decide(min_gain=0.03, max_cost_ratio=0.2)["decision"] == "do_not_ship"


def test_a_cheap_tie_that_may_be_worse_is_undecided(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", -0.01, 0.7, half=0.06)
    assert made.decide(max_cost_ratio=0.3)["decision"] == "inconclusive"
    made.pairs["few_shot"] = pair("tuned", "few_shot", -0.1, 0.0001, half=0.06)
    assert made.decide(max_cost_ratio=0.3)["decision"] == "do_not_ship"


def test_cheaper_than_the_best_is_not_enough_when_another_is_as_good_and_as_cheap(made: Made) -> None:
    """Tuned ties with few_shot at a quarter of the cost, but prompt ties too, at the same cost."""
    for name in ("few_shot", "prompt"):
        made.pairs[name] = pair("tuned", name, 0.005, 0.7, half=0.01)
    verdict = made.decide(max_cost_ratio=0.3)
    assert verdict["decision"] == "do_not_ship"
    assert "prompt" in gate(verdict)["reason"]


@pytest.mark.parametrize("unknown", ["tuned", "few_shot"])
def test_an_unknown_cost_is_not_a_low_one(made: Made, unknown: str) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", 0.005, 0.7, half=0.01)
    made.tokens[unknown] = None
    assert made.decide(max_cost_ratio=0.3)["decision"] == "do_not_ship"


# --- probes and data --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forgetting", "own_text"])
@pytest.mark.parametrize(
    ("finding", "decision", "passed"),
    [
        ("worse", "do_not_ship", False),
        ("not_powered", "inconclusive", None),
        ("failed", "inconclusive", None),
    ],
)
def test_a_probe_decides(made: Made, name: str, finding: str, decision: str, passed: bool | None) -> None:
    made.probe(name, finding)
    verdict = made.decide()
    assert (verdict["decision"], verdict["recommended"]) == (decision, "few_shot")
    assert gate(verdict, name)["passed"] is passed
    assert verdict["reasons"] == [f"{name}: {finding}"]


def test_a_probe_that_was_asked_for_and_did_not_run_never_ships(made: Made) -> None:
    (made.record / "probes/own_text.json").unlink()
    verdict = made.decide()
    assert verdict["decision"] == "inconclusive"
    own_text = gate(verdict, "own_text")
    assert own_text["reason"] == "this probe has not run"
    assert {own_text[key] for key in ("value", "low", "high", "threshold", "passed")} == {None}
    made.probes = ["forgetting"]
    assert made.decide()["decision"] == "ship"  # not asked for


LEAK = {"check": "leakage", "severity": "error", "message": "the same input on 2 sides"}


def test_leaking_examples_are_not_shipped(made: Made) -> None:
    made.audit([LEAK])
    verdict = made.decide()
    assert verdict["decision"] == "do_not_ship"
    assert verdict["reasons"] == ["the same input on 2 sides"]
    made.audit([LEAK | {"severity": "warning"}, {"check": "secret", "severity": "error", "message": "a key"}])
    assert made.decide()["decision"] == "ship"


def test_examples_that_were_not_checked_leave_it_open(made: Made) -> None:
    made.audit([], failed=("leakage",))
    assert made.decide()["decision"] == "inconclusive"
    made.audit([], failed=("secret",))
    assert made.decide()["decision"] == "ship"
    (made.record / "audit.json").unlink()
    verdict = made.decide()
    assert verdict["decision"] == "inconclusive"
    assert verdict["reasons"] == ["the examples were not checked"]


def test_what_failed_outweighs_what_is_open(made: Made) -> None:
    made.probe("forgetting", "not_powered")
    made.audit([LEAK])
    verdict = made.decide()
    assert verdict["decision"] == "do_not_ship"
    assert len(verdict["reasons"]) == 2


# --- who is recommended -----------------------------------------------------------------------------


def test_nothing_tuned_is_inconclusive_with_a_recommendation(made: Made) -> None:
    del made.scores["tuned"]
    verdict = made.decide()
    assert (verdict["decision"], verdict["recommended"], verdict["gates"]) == ("inconclusive", "few_shot", [])


def test_no_alternative_is_inconclusive(made: Made) -> None:
    made.scores = {"tuned": 0.9}
    verdict = made.decide()
    assert (verdict["decision"], verdict["recommended"]) == ("inconclusive", None)
    assert verdict["confident_and_wrong"] is None
    assert "no alternative" in verdict["reasons"][0]


@pytest.mark.parametrize(
    ("ties", "recommended"),  # the others do not differ significantly: that is no tie
    [
        ([], "few_shot"),
        ([("few_shot", "retrieval")], "few_shot"),
        ([("few_shot", "prompt")], "prompt"),
        ([("few_shot", "prompt"), ("few_shot", "scratch")], "scratch"),
        ([("prompt", "scratch")], "few_shot"),  # a tie of two others
    ],
)
def test_of_those_tied_with_the_best_the_cheapest_is_recommended(
    made: Made, ties: list[tuple[str, str]], recommended: str
) -> None:
    made.probe("forgetting", "worse")
    made.ties = {frozenset(tie) for tie in ties}
    assert made.decide()["recommended"] == recommended


def test_a_tie_is_shown_by_the_one_sided_bounds_where_they_are(made: Made) -> None:
    """prompt is at most 1.9 points behind few_shot, and retrieval too; scratch may be 2.1 behind."""
    made.probe("forgetting", "worse")
    made.decide()
    scores = made.record.read_json("scores.json")
    for row in scores["paired"]:
        row.update(least=-0.019, most=0.019)
        if {row["a"], row["b"]} == {"few_shot", "scratch"}:
            row.update({"most": 0.021} if row["a"] == "few_shot" else {"least": -0.021})
    write_json(made.record / "scores.json", scores)
    assert decide(made.record, Gates())["recommended"] == "prompt"
    assert decide(made.record, Gates(min_gain=0.03))["recommended"] == "scratch"
    assert decide(made.record, Gates(min_gain=0.01))["recommended"] == "few_shot"


def test_a_candidate_without_a_score_is_never_recommended(made: Made) -> None:
    made.probe("forgetting", "worse")
    made.scores["few_shot"] = None
    assert made.decide()["recommended"] == "retrieval"


ANSWERS = [  # score, confidence: eight are rated, so the surest quarter is two
    *((1.0, 0.95), (0.5, 0.92), (0.0, 0.5), (1.0, 0.5), (1.0, 0.4), (0.0, 0.3), (1.0, 0.2), (1.0, 0.1)),
    *((None, 0.99), (0.0, None)),
]


def test_confident_and_wrong_is_about_the_surest_answers_of_the_recommended(made: Made) -> None:
    made.answers["tuned"] = ANSWERS
    assert made.decide()["confident_and_wrong"] == {
        "candidate": "tuned",
        "threshold": 0.92,
        "n": 1,
        "of": 2,
        "share": 0.5,
    }


def test_no_confidence_is_null_not_zero(made: Made) -> None:
    made.answers["tuned"] = [(1.0, None), (None, 0.9)]
    assert made.decide()["confident_and_wrong"] is None


def test_no_scores_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="luthier evaluate"):
        decide(Record(tmp_path), Gates())


# --- null cases -------------------------------------------------------------------------------------


def fixed(difference: float, p: float, half: float = 0.05) -> dict[str, Any]:
    low, high = difference - half, difference + half
    told = {"difference": difference, "low": low, "high": high, "p": p, "n": 100}
    return {"answer": '{"mood": "good"}', "score": 0.9 - difference, **told}


def decide_with(made: Made, **changes: Any) -> dict[str, Any]:
    """Decided on the scores of the last decision with some keys changed."""
    made.decide()
    write_json(made.record / "scores.json", made.record.read_json("scores.json") | changes)
    return decide(made.record, Gates())


def test_a_gain_over_every_candidate_that_one_fixed_answer_has_too_is_none(made: Made) -> None:
    """The base does not know the form of the answers, tuned has learnt that and nothing else."""
    assert decide_with(made, constant=fixed(0.3, 0.0001))["decision"] == "ship"
    verdict = decide_with(made, constant=fixed(0.03, 0.4))
    assert (verdict["decision"], verdict["recommended"]) == ("inconclusive", None)
    assert (
        'tuned minus one fixed answer (\'{"mood": "good"}\', whatever is asked): +3.0%'
        in (gate(verdict)["reason"])
    )
    assert decide_with(made, constant=fixed(-0.1, 0.4))["decision"] == "do_not_ship"
    assert decide_with(made, constant=None)["decision"] == "ship"


def test_what_one_fixed_answer_beats_is_not_recommended(made: Made) -> None:
    """The best alternative is recommended unless a fixed answer is ahead of it by the least gain."""
    best = made.decide() and made.record.read_json("scores.json")["candidates"]["few_shot"]["score"]
    ahead = {**fixed(0.03, 0.4), "score": best + 0.021}
    verdict = decide_with(made, constant=ahead)
    assert (verdict["decision"], verdict["recommended"]) == ("inconclusive", None)
    told = 'always answering \'{"mood": "good"}\' does better.'
    assert verdict["headline"] == f"Not decided on gain; until then use none of these: {told}"
    lost = decide_with(made, constant={**fixed(-0.1, 0.4), "score": best + 0.021})
    assert lost["headline"].startswith("Tuned fails on gain; use none of these: always answering")
    verdict = decide_with(made, constant={**ahead, "score": best + 0.019})
    assert (verdict["recommended"], verdict["headline"]) == (
        "few_shot",
        "Not decided on gain; until then use few_shot.",
    )


@pytest.mark.parametrize(
    ("score", "low", "decision"),
    [(1.0, 0.85, "do_not_ship"), (0.99, 0.9, "do_not_ship"), (0.97, 0.9, "inconclusive")],
)
def test_an_alternative_that_solves_the_task_leaves_nothing_to_gain(
    made: Made, score: float, low: float, decision: str
) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", 0.0, 1.0, half=0.1)
    made.decide()
    candidates = made.record.read_json("scores.json")["candidates"]
    candidates["few_shot"] |= {"score": score, "low": low}
    verdict = decide_with(made, candidates=candidates)
    assert verdict["decision"] == decision
    assert ("no gain of 2.0% is possible" in gate(verdict)["reason"]) == (decision == "do_not_ship")


def test_a_handful_of_right_answers_does_not_show_that_the_task_is_solved(made: Made) -> None:
    made.pairs["few_shot"] = pair("tuned", "few_shot", 0.0, 1.0, half=0.3)
    made.decide()
    candidates = made.record.read_json("scores.json")["candidates"]
    candidates["few_shot"] |= {"score": 1.0, "low": 0.68}  # 8 of 8
    assert decide_with(made, candidates=candidates)["decision"] == "inconclusive"


@pytest.mark.parametrize(("alike", "decision"), [(5, "ship"), (6, "inconclusive")])
def test_more_than_a_few_near_duplicates_across_the_sides_leave_it_open(
    made: Made, alike: int, decision: str
) -> None:
    for side in ("train", "test"):
        write_jsonl(made.record / f"data/{side}.jsonl", [{"file": side, "line": i} for i in range(100)])
    leak = LEAK | {"severity": "warning"}
    across = [[{"file": side, "line": i} for side in ("train", "test")] for i in range(alike)]
    within = [[{"file": "test", "line": i} for i in (50, 51)]]  # the test side's own affair
    made.audit([leak | {"examples": examples} for examples in (*across, *within)])
    verdict = made.decide()
    assert verdict["decision"] == decision
    assert f"{alike} of 100 held-out examples are nearly the same" in gate(verdict, "data")["reason"]
