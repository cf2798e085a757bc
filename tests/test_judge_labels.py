"""A judge against people: agreement, correction with honest intervals, and when it may decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import blocks, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from luthier.errors import DataError, RecipeError
from luthier.examples.example import Example, Message
from luthier.grade import Doubtful, Grader, Summarises, build_grader, chat_endpoint
from luthier.grade.agreement import Agreement, cohen_kappa, correct_mean, measure_agreement
from luthier.grade.judge_labels import read_labels
from luthier.grade.judged import check_judge
from luthier.recipe.grader_options import PairwiseOptions, RubricOptions
from luthier.stats import wilson


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chat_endpoint, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("NO_PROXY", "*")


def agreement(good: int, good_said: int, bad: int, bad_said: int) -> Agreement:
    """Of `good` answers the judge passes `good_said`, of `bad` ones it fails `bad_said`."""
    human = [1.0] * good + [0.0] * bad
    judged = [1.0] * good_said + [0.0] * (good - good_said) + [0.0] * bad_said + [1.0] * (bad - bad_said)
    return measure_agreement(human, judged, (1.0,))


def test_agreement_by_hand() -> None:
    found = agreement(40, 30, 20, 18)
    (cut,) = found.cuts
    assert (found.n, found.unjudged, found.agreement) == (60, 0, 48 / 60)
    assert (cut.sensitivity.share, cut.specificity.share) == (30 / 40, 18 / 20)
    assert (cut.sensitivity.low, cut.sensitivity.high) == wilson(30, 40)
    assert (cut.specificity.low, cut.specificity.high) == wilson(18, 20)
    # by chance: 40/60 * 32/60 + 20/60 * 28/60
    chance = (40 * 32 + 20 * 28) / 3600
    assert found.kappa == pytest.approx((0.8 - chance) / (1 - chance))
    assert found.kappa_low is not None and found.kappa_high is not None and found.kappa is not None
    assert found.kappa_low < found.kappa < found.kappa_high
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["cuts"][0]["sensitivity"]["right"] == 30


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((0, 0.5, 1)), st.sampled_from((0, 0.5, 1))), min_size=2, max_size=30)
)
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    found = cohen_kappa(a, b)
    if len(set(a) | set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(cohen_kappa_score(2 * a, 2 * b))


def test_nothing_to_agree_on() -> None:
    found = measure_agreement([1.0, 0.0], [None, None], (1.0,))
    assert (found.n, found.unjudged, found.agreement, found.kappa) == (0, 2, None, None)
    assert found.doubts is not None
    same = measure_agreement([1.0] * 30, [1.0] * 30, (1.0,))
    assert (same.kappa, same.kappa_low, same.agreement) == (None, None, 1.0)


def test_unjudged_labels_are_neither_right_nor_wrong() -> None:
    found = measure_agreement([1, 1, 0, 0], [1, None, 0, None], (1.0,))
    assert (found.n, found.unjudged, found.agreement) == (2, 2, 1.0)
    assert found.cuts[0].sensitivity.n == 1


@pytest.mark.parametrize(
    ("counts", "doubt"),
    [
        ((10, 10, 10, 10), None),
        ((9, 9, 30, 30), "only 9 at or above"),
        ((30, 30, 9, 9), "only 9 below"),
        ((30, 30, 0, 0), "only 0 below"),
        ((30, 16, 30, 16), "no better than a coin"),
        ((20, 4, 20, 4), "no better than a coin"),  # worse than a coin
        ((100, 70, 100, 70), None),
    ],
)
def test_doubts(counts: tuple[int, int, int, int], doubt: str | None) -> None:
    found = agreement(*counts)
    assert (found.doubts is None) == (doubt is None)
    assert doubt is None or doubt in str(found.doubts)
    assert (correct_mean([1.0, 0.0], found) is None) == (doubt is not None)


def test_correction_by_hand() -> None:
    """Se 0.9, Sp 0.8: of 100 answers of which 60 are good it passes 0.6 * 0.9 + 0.4 * 0.2 = 62."""
    found = correct_mean([1.0] * 62 + [0.0] * 38, agreement(100, 90, 100, 80))
    assert found is not None
    assert found.score == pytest.approx(0.6)
    assert found.low < 0.6 < found.high
    # se of the share 0.0485; of Se 0.03 and Sp 0.04, weighted by 0.6 and 0.4; all over 0.7
    error = np.sqrt(0.62 * 0.38 / 100 + 0.36 * 0.09 / 100 + 0.16 * 0.16 / 100) / 0.7
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_a_perfect_judge_is_hardly_corrected_and_few_labels_widen() -> None:
    scores = [1.0] * 30 + [0.0] * 20
    many, few = (
        correct_mean(scores, agreement(5000, 5000, 5000, 5000)),
        correct_mean(scores, agreement(10, 10, 10, 10)),
    )
    assert many is not None and few is not None
    assert many.score == few.score == pytest.approx(0.6)
    assert (many.low, many.high) == pytest.approx(wilson(30, 50), abs=0.005)
    assert few.high - few.low > many.high - many.low


def test_the_correction_stays_in_bounds() -> None:
    found = correct_mean([0.0] * 50, agreement(30, 24, 30, 24))
    assert found is not None
    assert (found.score, found.low) == (0.0, 0.0)
    assert 0 < found.high < 0.3
    top = correct_mean([1.0] * 50, agreement(30, 24, 30, 24))
    assert top is not None and (top.score, top.high) == (1.0, 1.0)


def test_answers_of_one_source_widen_the_interval() -> None:
    scores = ([1.0] * 5 + [0.0] * 5) * 10
    known = agreement(200, 180, 200, 180)
    alone = correct_mean(scores, known)
    sources = [f"s{i // 5}" for i in range(100)]
    together = correct_mean(scores, known, clusters=sources)
    assert alone is not None and together is not None
    assert together.score == alone.score
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    singles = correct_mean(scores, known, clusters=[str(i) for i in range(100)])
    assert singles == alone


def test_a_win_rate_counts_ties_as_halves() -> None:
    """A judge that never errs: the corrected win rate is the mean score."""
    human = [1.0] * 200 + [0.5] * 200 + [0.0] * 200
    known = measure_agreement(human, human, (1.0, 0.5))
    found = correct_mean([1.0] * 5 + [0.5] * 2 + [0.0] * 3, known)
    assert found is not None
    assert found.score == pytest.approx(0.6)
    assert [cut.threshold for cut in known.cuts] == [1.0, 0.5]
    assert known.cuts[0].sensitivity.n == 200 and known.cuts[1].sensitivity.n == 400


@pytest.mark.parametrize(("truth", "se", "sp", "labels"), [(0.9, 0.85, 0.85, 80), (0.2, 0.75, 0.9, 100)])
def test_the_interval_covers_the_truth_where_the_raw_mean_does_not(
    truth: float, se: float, sp: float, labels: int
) -> None:
    rng = np.random.default_rng(5)
    covered = naive = drawn = 0
    for _ in range(250):
        good = int(np.clip(rng.binomial(labels, 0.5), 10, labels - 10))
        bad = labels - good
        known = agreement(good, rng.binomial(good, se), bad, rng.binomial(bad, sp))
        passed = rng.binomial(200, truth * se + (1 - truth) * (1 - sp))
        found = correct_mean([1.0] * passed + [0.0] * (200 - passed), known)
        if found is None:
            continue
        drawn += 1
        covered += found.low <= truth <= found.high
        low, high = wilson(passed, 200)
        naive += low <= truth <= high
    assert drawn > 240
    assert 0.92 <= covered / drawn <= 1.0
    assert naive / drawn < 0.9


# --- the file ---------------------------------------------------------------------------------------


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_labels_are_read_in_every_form(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    rows: list[Any] = [
        {"input": "q", "answer": "a", "human": True},
        "",
        {"messages": turns, "answer": "a", "reference": "r", "human": "fail"},
        {"input": "q", "answer": "a", "human": 1},
        {"input": "q", "answer": "a", "human": 0.0},
    ]
    labels = read_labels(write(tmp_path / "l.jsonl", rows), "rubric")
    assert [label.human for label in labels] == [1.0, 0.0, 1.0, 0.0]
    assert labels[1].example.where == f"{tmp_path / 'l.jsonl'}:3"
    assert [message.role for message in labels[1].example.request] == ["system", "user"]
    assert (labels[1].reference, labels[0].reference) == ("r", "")
    pairs = [
        {"input": "q", "answer": "a", "reference": "r", "human": h}
        for h in ("answer", "tie", "reference", 0.5)
    ]
    assert [label.human for label in read_labels(write(tmp_path / "p.jsonl", pairs), "pairwise")] == [
        1,
        0.5,
        0,
        0.5,
    ]


GOOD = {"input": "q", "answer": "a", "reference": "r", "human": 1}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "l.jsonl:2: not valid JSON"),
        ("[1]", "l.jsonl:2: not a JSON object"),
        ({"input": "q", "human": 1, "reference": "r"}, "l.jsonl:2: no answer"),
        (GOOD | {"human": None}, "l.jsonl:2: no human"),
        (GOOD | {"reference": None}, "l.jsonl:2: no reference"),
        (GOOD | {"answer": 5}, "l.jsonl:2: answer and reference are texts"),
        (GOOD | {"human": "good"}, "human is 'good'"),
        (GOOD | {"human": 0.7}, "human is 0.7"),
        (GOOD | {"human": [1]}, r"human is \[1\]"),
        (GOOD | {"input": 5}, "no input"),
        (GOOD | {"input": None, "messages": ["x"]}, "no input"),
    ],
)
def test_a_line_that_is_no_label(tmp_path: Path, row: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_labels(write(tmp_path / "l.jsonl", [GOOD, row]), "pairwise")


def test_a_file_that_holds_no_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "none.jsonl", "rubric")
    with pytest.raises(DataError, match="there are no labels in it"):
        read_labels(write(tmp_path / "l.jsonl", [""]), "rubric")
    with pytest.raises(DataError, match=r"human is 0\.5"):
        read_labels(write(tmp_path / "l.jsonl", [GOOD | {"human": 0.5}]), "rubric")


# --- the whole way ----------------------------------------------------------------------------------


def sloppy(body: dict[str, Any], count: int) -> str:
    """Passes what says please, but also what says urgent."""
    answer = blocks(body)["ANSWER"]
    return json.dumps({"reason": "x", "pass": "please" in answer or "urgent" in answer})


def judged(url: str, labels: Path) -> Grader:
    options = {
        "kind": "rubric",
        "rubric": "Polite.",
        "endpoint": {"url": url, "model": "j"},
        "labels": str(labels),
    }
    return build_grader(RubricOptions.model_validate(options), [], answer_schema=None)


def labelled(tmp_path: Path) -> Path:
    """40 polite answers that it passes; 30 rude ones that it fails, and 10 that it passes as urgent."""
    rows = [
        {"input": f"q{i}", "answer": text, "human": human}
        for i, (text, human) in enumerate(
            [("please", "pass")] * 40 + [("no", "fail")] * 30 + [("urgent", "fail")] * 10
        )
    ]
    return write(tmp_path / "labels.jsonl", rows)


def test_a_judge_that_was_measured_gates_and_its_mean_is_corrected(tmp_path: Path) -> None:
    with serving(sloppy) as server:
        grader = judged(server.url, labelled(tmp_path))
        assert isinstance(grader, Doubtful) and isinstance(grader, Summarises)
        assert grader.gates
        about = grader.about()
    assert about["calibration"]["cuts"][0]["sensitivity"]["share"] == 1.0
    assert about["calibration"]["cuts"][0]["specificity"]["share"] == 0.75
    assert "calibrated on 80 labels: kappa 0.75" in grader.gates_reason
    rows = [{"score": 1.0, "detail": {}}] * 50 + [{"score": 0.0, "detail": {}}] * 50
    rows += [{"score": None, "detail": {}}] * 7
    corrected = grader.summarise(rows, None)["corrected"]
    assert corrected["score"] == pytest.approx((0.5 + 0.75 - 1) / 0.75)
    assert corrected["low"] < corrected["score"] < corrected["high"]
    assert len(server.requests) == 80  # asked once, however often it is looked at


def test_a_judge_that_agrees_by_chance_does_not_gate(tmp_path: Path) -> None:
    with serving(lambda body, count: json.dumps({"reason": "x", "pass": True})) as server:
        grader = judged(server.url, labelled(tmp_path))
        assert isinstance(grader, Doubtful) and isinstance(grader, Summarises)
        assert not grader.gates
        assert "coin" in grader.gates_reason
        assert grader.summarise([{"score": 1.0, "detail": {}}], None) == {"corrected": None}


def test_labels_of_pairs(tmp_path: Path) -> None:
    rows = [
        {"input": f"q{i}", "answer": answer, "reference": "fine", "human": human}
        for i, (answer, human) in enumerate([("finer", "answer")] * 12 + [("poor", "reference")] * 12)
    ]

    def behave(body: dict[str, Any], count: int) -> str:
        texts = blocks(body)
        rank = {"poor": 0, "fine": 1, "finer": 2}
        return json.dumps({"reason": "x", "winner": "A" if rank[texts["A"]] > rank[texts["B"]] else "B"})

    with serving(behave) as server:
        options = {
            "kind": "pairwise",
            "endpoint": {"url": server.url, "model": "j"},
            "labels": str(write(tmp_path / "l.jsonl", rows)),
        }
        grader = build_grader(PairwiseOptions.model_validate(options), [], answer_schema=None)
        assert isinstance(grader, Doubtful) and grader.gates
    assert len(server.requests) == 48
    assert len(grader.about()["calibration"]["cuts"]) == 2


def test_a_judge_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "j", "key_env": "JUDGE_KEY"}
    options = {"kind": "rubric", "rubric": "x", "endpoint": endpoint, "labels": str(tmp_path / "none.jsonl")}
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(RecipeError, match="JUDGE_KEY"):
        check_judge(RubricOptions.model_validate(options))
    monkeypatch.setenv("JUDGE_KEY", "k")
    with pytest.raises(DataError, match="labels cannot be read"):
        check_judge(RubricOptions.model_validate(options))
    check_judge(RubricOptions.model_validate(options | {"labels": None}))


def test_an_example_is_not_its_own_answer(tmp_path: Path) -> None:
    """The judge of a label sees the request, not the reference as a turn of it."""
    with serving(sloppy) as server:
        grader = judged(server.url, write(tmp_path / "l.jsonl", [GOOD]))
        assert isinstance(grader, Doubtful)
        assert not grader.gates
        grader.grade("b", "r2", Example("e", (Message("user", "u"), Message("assistant", "r2")), "f", 1))
    assert [blocks(request)["REQUEST"] for request in server.requests] == ["user: q", "user: u"]
    assert [blocks(request)["REFERENCE"] for request in server.requests] == ["r", "r2"]
