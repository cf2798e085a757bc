"""Agreement of samples as confidence: what is the same, what is sampled, what calibration makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from hypothesis import given
from hypothesis import strategies as st

import luthier
import luthier.models
import luthier.pipeline.agreeing
from luthier.candidates.answer import ask, sample
from luthier.chat import ChatFormat
from luthier.constrain import OneOfLabels
from luthier.errors import RecipeError
from luthier.evidence.calibration import report_calibration, travelling
from luthier.grade import build_grader
from luthier.grade.same_answer import measure_agreement, measure_alike
from luthier.models import LoadedModel
from luthier.pipeline import Run, learning_curve
from luthier.recipe import dump_recipe, load_recipe, parse_recipe, recipe_schema
from luthier.recipe.grader_options import StringCheckOptions, TextSimilarityOptions
from luthier.recipe.stakes_options import Abstain, Confidence
from luthier.record import Record
from luthier.stats import fit_temperature, risk_coverage


def alike(grader: Any, one: str, other: str) -> float:
    return measure_alike(build_grader(grader, ["good", "bad"], answer_schema=None))(one, other)


# --- the recipe -------------------------------------------------------------------------------------


def test_confidence_is_a_name_or_a_mapping(tmp_path: Path) -> None:
    raw = {"model": "m", "data": "d.jsonl"}
    assert parse_recipe(raw, base=Path()).confidence == Confidence()
    assert parse_recipe(raw | {"confidence": "agreement"}, base=Path()).confidence.samples == 5
    own = parse_recipe(raw | {"confidence": {"kind": "agreement", "samples": 9}}, base=Path())
    assert (own.confidence.samples, own.confidence.temperature) == (9, 0.7)
    (tmp_path / "r.yaml").write_text(dump_recipe(own))
    assert load_recipe(tmp_path / "r.yaml").confidence == own.confidence
    for wrong in ("agreeing", {"kind": "agreement", "samples": 1}, {"kind": "agreement", "temperature": 0}):
        with pytest.raises(RecipeError, match="confidence"):
            parse_recipe(raw | {"confidence": wrong}, base=Path())
    with pytest.raises(RecipeError, match=r"did you mean 'confidence\.samples'"):
        parse_recipe(raw | {"confidence": {"kind": "agreement", "sample": 3}}, base=Path())
    assert "agreement" in recipe_schema()["properties"]["confidence"]["anyOf"][0]["enum"]


# --- what is the same -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grader", "one", "other", "expected"),
    [
        ("label", ' "Good." ', "good", 1),
        ("label", "bad", "good", 0),
        ("label", "ramble", "ramble", 1),
        ("label", "", "", 1),
        ("label", "good", "", 0),
        ("string_check", "a b", " a b ", 1),
        ("string_check", "A b", "a b", 0),
        (StringCheckOptions(kind="string_check", ignore_case=True), "A b", "a b", 1),
        ("numeric", "about 7.0", "7", 1),
        ("numeric", "8", "7", 0),
        ("numeric", "none", "none", 1),
        ("json_fields", '{"b": 2, "a": "X"}', '{"a": "x", "b": 2.0}', 1),
        ("json_fields", '{"a": "x", "b": 2}', '{"a": "x", "b": 3}', 0),
        ("json_fields", '{"a": 1}', "no JSON", 0),
        ("json_fields", "no JSON", '{"a": 1}', 0),
        ("json_fields", "no JSON", "no JSON ", 1),
        ("json_fields", "I do not know it", "I do not know that", 0),
        ("text_similarity", "the cat sat", "the cat sat", 1),
        ("text_similarity", "", "", 1),
        ("text_similarity", "xyz", "the cat sat", 0),
    ],
)
def test_the_same_answer_in_the_eyes_of_the_grader(
    grader: Any, one: str, other: str, expected: float
) -> None:
    assert alike(grader, one, other) == pytest.approx(expected, abs=0.01)


def test_valid_under_the_schema_is_not_the_same(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    grader = build_grader("json_schema", [], answer_schema=tmp_path / "schema.json")
    assert measure_alike(grader)('{"a": 1}', '{"a": 2}') == 0.0
    assert measure_alike(grader)('{"a": 1}', '{"a":1.0}') == 1.0


def test_free_text_is_as_alike_as_the_recipes_metric_says() -> None:
    from sacrebleu.metrics.chrf import CHRF

    one, other = "the kettle is broken", "the kettle was broken"
    expected = CHRF().sentence_score(one, [other]).score / 100
    assert 0.5 < expected < 1
    assert alike("text_similarity", one, other) == pytest.approx(expected)
    bleu = alike(TextSimilarityOptions(kind="text_similarity", metric="bleu"), one, other)
    assert bleu != pytest.approx(expected)


def test_a_rule_that_knows_the_truth_plays_no_part(tmp_path: Path) -> None:
    """A grader of the user's own may read the reference out of the example; the confidence must not."""
    (tmp_path / "rule.py").write_text(
        "def grade(answer, reference, example):\n    raise SystemExit('asked')\n"
    )
    grader = build_grader(f"python:{tmp_path / 'rule.py'}:grade", [], answer_schema=None)
    same = measure_alike(grader)
    assert same("the cat", "the cat") == pytest.approx(1.0)
    assert 0 < same("the cat sat", "the cat") < 1
    assert same('{"a": 1}', '{ "a": 1 }') == 1.0
    assert same('{"a": 1, "b": 2}', '{"a": 1, "b": 3}') == 0.0


def test_agreement_is_the_mean_over_the_samples() -> None:
    same = measure_alike(build_grader("label", ["good", "bad"], answer_schema=None))
    assert measure_agreement(["good", "Good.", "bad", "good"], "good", same) == 0.75
    with pytest.raises(ValueError, match="no sampled answer"):
        measure_agreement([], "good", same)


@given(st.lists(st.sampled_from(["good", "bad", "", "x"]), min_size=1), st.sampled_from(["good", "bad", ""]))
def test_agreement_is_a_share(samples: list[str], greedy: str) -> None:
    for name in ("label", "string_check", "text_similarity", "json_fields", "numeric"):
        same = measure_alike(build_grader(name, ["good", "bad"], answer_schema=None))
        assert 0.0 <= measure_agreement(samples, greedy, same) <= 1.0
        assert measure_agreement([greedy] * 3, greedy, same) == pytest.approx(1.0)


# --- what is sampled --------------------------------------------------------------------------------

ASKED = {
    key: [
        {"role": "system", "content": "Say what it is and nothing more."},
        {"role": "user", "content": text},
    ]
    for key, text in {"a": "a red box", "b": "an old and rusty lamp from the cellar", "c": "tea"}.items()
}


def sampled(loaded: LoadedModel, chat: ChatFormat, **changes: Any) -> dict[str, list[str]]:
    options: dict[str, Any] = {"count": 4, "temperature": 1.0, "seed": 0, "max_new_tokens": 6}
    return sample(loaded.model, chat, ASKED, **(options | changes))


def test_cold_samples_are_the_greedy_answers_each_at_its_place(loaded: LoadedModel, chat: ChatFormat) -> None:
    greedy = {row.id: row.answer for row in ask(loaded.model, chat, ASKED, max_new_tokens=6)}
    assert len(set(greedy.values())) == 3
    assert sampled(loaded, chat, temperature=1e-4) == {key: [text] * 4 for key, text in greedy.items()}


def test_samples_are_drawn_apart_and_repeat_with_their_seed(loaded: LoadedModel, chat: ChatFormat) -> None:
    seen: list[int] = []
    found = sampled(loaded, chat, advance=seen.append)
    assert all(len(set(texts)) > 1 for texts in found.values())
    assert sum(seen) == 12
    assert sampled(loaded, chat) == found
    assert sampled(loaded, chat, seed=1) != found


def test_samples_follow_the_models_own_distribution(loaded: LoadedModel, chat: ChatFormat) -> None:
    """One of two labels that differ in their first token: its logits say how often each is drawn."""
    labels = OneOfLabels(["red", "tea"], chat)
    first = [chat.tokenizer(text, add_special_tokens=False).input_ids[0] for text in ("red", "tea")]
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([chat.prompt(ASKED["a"])])).logits[0, -1, first]
    options: dict[str, Any] = {"count": 600, "temperature": 0.7, "seed": 3, "max_new_tokens": 1}
    texts = sample(loaded.model, chat, {"a": ASKED["a"]}, constraint=labels, **options)["a"]
    expected = float(torch.softmax(logits.double() / 0.7, dim=0)[1])
    assert set(texts) == {"red", "tea"}
    assert texts.count("tea") / 600 == pytest.approx(expected, abs=3.5 * np.sqrt(0.25 / 600))


# --- what calibration makes of it -------------------------------------------------------------------


def rows(n: int, seed: int) -> tuple[list[dict[str, Any]], list[float]]:
    """Answers whose agreement tells right from wrong and whose probability tells nothing."""
    rng = np.random.default_rng(seed)
    agreement = rng.integers(0, 6, n) / 5
    right = rng.random(n) < 0.1 + 0.85 * agreement
    table = [
        {"id": str(i), "confidence": float(a), "score": float(y)}
        for i, (a, y) in enumerate(zip(agreement, right, strict=True))
    ]
    return table, [float(x) for x in rng.random(n)]


def calibrated(**changes: Any) -> dict[str, Any]:
    test, plain = rows(400, 2)
    kinds = {"logprob": plain, "agreement": [row["confidence"] for row in test]}
    given_: dict[str, Any] = {"confidence": Confidence(kind="agreement"), "kinds": kinds} | changes
    abstain = Abstain(risk=0.3)
    return report_calibration("tuned", rows(200, 1)[0], test, None, abstain, seed=0, **given_)


def test_both_kinds_stand_side_by_side_on_the_same_answers() -> None:
    found = calibrated()
    plain, agreement = found["compared"]
    assert [row["kind"] for row in found["compared"]] == ["logprob", "agreement"]
    assert agreement["aurc"]["high"] < plain["aurc"]["low"]
    test, probabilities = rows(400, 2)
    expected = risk_coverage(probabilities, [row["score"] for row in test])
    assert plain["aurc"]["estimate"] == pytest.approx(expected.aurc.estimate)
    assert (plain["random"], plain["n"]) == (agreement["random"], 400)
    assert agreement["aurc"] == found["risk_coverage"]["aurc"]
    assert found["confidence"]["kind"] == "agreement"


def test_an_answer_that_lacks_one_kind_is_left_out_of_both() -> None:
    test, plain = rows(400, 2)
    lacking: list[float | None] = [None, *plain[1:]]
    found = calibrated(kinds={"logprob": lacking, "agreement": [row["confidence"] for row in test]})
    assert [row["n"] for row in found["compared"]] == [399, 399]
    assert found["n"] == 400


def test_the_threshold_is_for_the_kind_that_is_asked_for() -> None:
    found = calibrated()["abstention"]
    assert found["value"] in [i / 5 for i in range(6)]
    told = travelling(calibrated())
    assert told["kind"] == "agreement"
    assert "5 answers sampled at temperature 0.7" in told["confidence"]
    plain = travelling(calibrated(confidence=None, kinds=None))
    assert (plain["kind"], plain["confidence"][:6]) == ("logprob", "exp of")
    assert calibrated(kinds=None)["compared"] == []


# --- a run ------------------------------------------------------------------------------------------

HOT = {"kind": "agreement", "samples": 5, "temperature": 1.5}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("agreement")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            candidates=["prompt", "tuned"],
            probes=[],
            confidence=HOT,
        )
        open_run(folder, folder / "run").all()
        yield folder


@pytest.fixture
def finished(home: Path, tmp_path: Path) -> Path:
    shutil.copytree(home / "run", tmp_path / "run")
    return tmp_path / "run"


def open_run(home: Path, folder: Path, **changes: Any) -> Run:
    return Run(luthier.load_recipe(home / "recipe.yaml", changes), folder)


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def times(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (folder / ".stages").glob("*.json")}


def test_every_answer_of_both_sides_is_sampled(finished: Path) -> None:
    found = {row["id"]: row for row in read(finished, "answers/tuned-agreement.jsonl")}
    greedy = {row["id"]: row for row in read(finished, "predictions/tuned.jsonl")}
    held = {row["id"]: row for row in read(finished, "answers/tuned-validation.jsonl")}
    assert set(found) == set(greedy) | set(held)
    assert {row["side"] for row in found.values()} == {"validation", "test"}
    for key, row in found.items():
        answer = (greedy | held)[key]["answer"]
        same = [text.strip().strip(".").casefold() == answer.strip().casefold() for text in row["samples"]]
        assert len(same) == 5
        assert row["agreement"] == pytest.approx(sum(same) / 5, abs=0.21)  # but for punctuation
    assert len({row["agreement"] for row in found.values()}) > 1


def test_calibration_and_export_use_it_and_predictions_keep_the_probability(finished: Path) -> None:
    report = json.loads((finished / "calibration.json").read_text())
    found = {row["id"]: row["agreement"] for row in read(finished, "answers/tuned-agreement.jsonl")}
    rows_ = read(finished, "predictions/tuned.jsonl")
    assert report["confidence"] == HOT
    scores = [row["score"] for row in rows_]
    expected = risk_coverage([found[row["id"]] for row in rows_], scores)
    assert report["risk_coverage"]["aurc"]["estimate"] == pytest.approx(expected.aurc.estimate)
    assert report["before"]["confidence"] == pytest.approx(np.mean([found[row["id"]] for row in rows_]))
    held = read(finished, "answers/tuned-validation.jsonl")
    fitted = fit_temperature([found[row["id"]] for row in held], [row["score"] for row in held])
    assert report["temperature"]["nll_before"] == pytest.approx(fitted.nll_before)
    plain = risk_coverage([row["confidence"] for row in rows_], scores)
    assert report["compared"][0]["aurc"]["estimate"] == pytest.approx(plain.aurc.estimate)
    carried = json.loads((Run.open(finished).export() / "abstention.json").read_text())
    assert "5 answers sampled at temperature 1.5" in carried["confidence"]


def test_the_card_and_the_list_for_a_person_show_it(finished: Path) -> None:
    for page in ("card.md", "report.html"):
        text = (finished / page).read_text().replace("\\", "")
        assert "ow far 5 sampled answers agree with the greedy one" in text
        assert "Area by agreement of samples" in text and "Area by the answer" in text
    found = {row["id"]: row["agreement"] for row in read(finished, "answers/tuned-agreement.jsonl")}
    listed = Run.open(finished).review()
    assert listed
    assert all(row["confidence"] == found[row["id"]] for row in listed)


def test_only_what_depends_on_it_is_computed_again(
    home: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = times(finished)
    open_run(home, finished, confidence=HOT | {"samples": 2}).evaluate()
    after = times(finished)
    assert {name for name in after if after[name] != before.get(name)} == {"agreement-tuned", "calibrate"}
    monkeypatch.setattr(luthier.models, "load_model", lambda name: pytest.fail("a model was loaded"))
    open_run(home, finished, confidence=HOT | {"samples": 2}).evaluate()
    assert times(finished) == after
    open_run(home, finished, confidence="logprob").evaluate()
    report = json.loads((finished / "calibration.json").read_text())
    assert (report["confidence"]["kind"], report["compared"]) == ("logprob", [])
    last = times(finished)
    assert {name for name in last if last[name] != after.get(name)} == {"calibrate"}


def test_the_smaller_runs_of_a_learning_curve_sample_nothing_and_wait_for_nobody(
    home: Path, finished: Path
) -> None:
    seen: list[Any] = []

    def evaluate(recipe: Any, folder: Path) -> None:
        seen.append(recipe)
        shutil.copytree(finished / "predictions", folder / "predictions")

    recipe = luthier.load_recipe(home / "recipe.yaml", {"stakes": "high", "probes": "all"})
    learning_curve.write_curve(Record(finished), recipe, evaluate)
    assert [(r.stakes, r.confidence.kind, r.probes) for r in seen] == [("normal", "logprob", ())] * 2


def test_the_sides_are_sampled_with_seeds_of_their_own(home: Path) -> None:
    seeds = {
        luthier.pipeline.agreeing._seed(seed, side) for seed in (0, 1) for side in ("validation", "test")
    }
    assert len(seeds) == 4
