"""Recipes with a head: a reward model that is compared, asked and learnt from; a classifier that answers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch

import luthier.probes
from luthier.candidates.preferring import PreferredWords, choose
from luthier.errors import RecipeError
from luthier.examples import Example
from luthier.examples.example import Message
from luthier.grade import build_grader
from luthier.grade.reward_model import RewardModel
from luthier.pipeline import Run
from luthier.pipeline.models import Models
from luthier.pipeline.stages import read_split
from luthier.progress import Silent
from luthier.recipe import load_recipe, parse_recipe
from luthier.recipe.grader_options import RewardModelOptions


def write_ranked(path: Path, count: int = 60) -> Path:
    """Requests with three answers: polite ones before plain ones before rude ones, of any length."""
    dice = random.Random(0)
    rows = []
    for number in range(count):
        thing = dice.choice(tiny_run.THINGS)
        tail = dice.choice(("", " now", " again", " at once"))
        rows.append(
            {
                "prompt": f"No. {number * 37}: where is the {thing}?",
                "chosen": f"kindly{tail}",
                "rejected": [f"here{tail}", f"go away{tail}"],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("reward")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        write_ranked(folder / "ranked.jsonl")
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            data="ranked.jsonl",
            grader=None,
            method="reward",
            train={"epochs": 3, "learning_rate": 0.01, "batch_tokens": 800},
        )
        yield folder


@pytest.fixture(scope="module")
def reward_run(home: Path) -> Run:
    run = Run(load_recipe(home / "recipe.yaml"), home / "run")
    run.evaluate()
    return run


def test_a_reward_run_compares_what_each_candidate_prefers(reward_run: Run) -> None:
    scores = reward_run.evaluate()
    assert set(scores["candidates"]) == {"prompt", "scratch", "tuned"}
    assert scores["candidates"]["tuned"]["score"] > 0.8  # a word decides: both small models find it
    assert scores["candidates"]["scratch"]["score"] == 1.0
    assert scores["candidates"]["prompt"]["score"] < 0.7
    test = {example.id: example for example in read_split(reward_run.record).test}
    for name in scores["candidates"]:
        for row in reward_run.record.read_jsonl(f"predictions/{name}.jsonl"):
            example = test[row["id"]]
            assert row["answer"] in (example.answer, *example.rejected)
            assert row["score"] == float(row["answer"] == example.answer)
            assert 1 / 3 - 1e-6 <= row["confidence"] <= 1
    verdict = reward_run.verdict()
    assert verdict["decision"] == "do_not_ship"
    assert verdict["recommended"] == "scratch"  # which costs nothing
    assert "probes" not in reward_run.record.path.iterdir()
    card, report = reward_run.card()
    assert card.is_file() and report.is_file()


def test_the_adapter_is_a_sequence_classifier_of_peft(reward_run: Run) -> None:
    config = json.loads((reward_run.record / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert config["task_type"] == "SEQ_CLS"


def test_it_exports_as_a_sequence_classifier(reward_run: Run, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = reward_run.export(out=tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    example = read_split(reward_run.record).test[0]
    grader = RewardModel(RewardModelOptions(kind="reward_model", run=str(reward_run.record.path)))
    (reward,) = grader.reward_many([(example.answer, "", example)])
    ids = torch.tensor([grader._ids(example.answer, example)])
    with torch.inference_mode():
        assert float(merged(input_ids=ids).logits) == pytest.approx(reward, abs=1e-4)


def test_the_graders_score_is_bradley_terry_of_its_rewards(home: Path, reward_run: Run) -> None:
    grader = build_grader(
        RewardModelOptions(kind="reward_model", run=str(home / "run")), [], answer_schema=None
    )
    assert isinstance(grader, RewardModel) and not grader.gates
    example = read_split(reward_run.record).test[0]
    better, worse = example.answer, example.rejected[-1]
    scores = grader.grade_many([(better, worse, example), (worse, better, example), (worse, worse, example)])
    own = grader.reward_many([(better, "", example), (worse, "", example), ("", "", example)])
    assert own[0] != own[1] and all(map(math.isfinite, own))
    assert scores[0].value == pytest.approx(1 / (1 + math.exp(own[1] - own[0])), abs=1e-6)
    assert scores[0].value + scores[1].value == pytest.approx(1.0, abs=1e-6)
    assert scores[2].value == pytest.approx(0.5, abs=1e-6)
    assert scores[0].detail["reward"] == pytest.approx(own[0], abs=1e-6)


def test_a_reward_model_can_be_learnt_from(home: Path, reward_run: Run) -> None:
    train = {"epochs": 1, "learning_rate": 0.01, "batch_tokens": 3000, "replay": 0.0}
    reward = {"kind": "reward_model", "run": "run"}
    asked = {"method": {"kind": "rloo", "samples": 4}, "reward": reward, "train": train, "probes": []}
    changes = {**asked, "grader": "label", "max_new_tokens": 6, "candidates": ["prompt", "tuned"]}
    run = Run(load_recipe(home / "recipe.yaml", changes), home / "online")
    run.train()
    lines = run.record.read_jsonl("train/metrics.jsonl")
    held = next(line for line in lines if "validation_reward" in line)
    assert math.isfinite(held["validation_reward"])
    assert all(math.isfinite(line["reward"]) for line in lines if "reward" in line)


def test_what_is_no_reward_model_is_refused(home: Path, tmp_path: Path, reward_run: Run) -> None:
    with pytest.raises(RecipeError, match="no trained reward model"):
        RewardModel(RewardModelOptions(kind="reward_model", run=str(tmp_path)))
    (tmp_path / "adapter").mkdir()
    text = (home / "run/recipe.yaml").read_text(encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        text.replace("kind: reward", "kind: classify")
        .replace("margin: null\n", "")
        .replace("  center_coefficient: 0.0\n", ""),
        encoding="utf-8",
    )
    with pytest.raises(RecipeError):
        RewardModel(RewardModelOptions(kind="reward_model", run=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"candidates": ["few_shot", "tuned"]}, "few_shot cannot be compared"),
        ({"probes": ["forgetting"]}, "probes ask a model that writes"),
        ({"train": {"replay": 0.1}}, "train.replay trains on texts"),
        ({"canaries": 2}, "canaries trains on texts"),
        ({"stakes": "high"}, "stakes: high asks for every probe, .* method reward makes none"),
        ({"confidence": "agreement"}, "agreement samples answers, and what method reward makes writes none"),
    ],
)
def test_what_a_reward_model_cannot_be_asked(home: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(home / "recipe.yaml", changes)


def ranked(answer: str, *rejected: str, number: int = 0) -> Example:
    messages = (Message("user", f"request {number}"), Message("assistant", answer))
    return Example(f"id{number}", messages, "f.jsonl", number + 1, rejected=rejected)


def test_a_choice_is_what_is_worth_most_and_ties_do_not_favour_the_right_one(home: Path) -> None:
    models = Models(str(home / "model"), home / "none", Silent())
    examples = [ranked("yes", "no", "perhaps", number=n) for n in range(40)]
    alike = choose(examples, lambda sequences: [0.0] * len(sequences), models.chat, None)
    right = sum(a.answer == "yes" for a in alike)
    assert 3 <= right <= 25  # a third of them, by chance
    assert all(a.confidence == pytest.approx(1 / 3) for a in alike)
    longest = choose(examples, lambda s: [float(len(one.ids)) for one in s], models.chat, "Be brief.")
    assert all(a.answer == "perhaps" and "Be brief." in (a.prompt or "") for a in longest)
    lengths = sorted(len(models.tokenizer(text).input_ids) for text in ("yes", "no", "perhaps"))
    gaps = [math.exp(n - lengths[-1]) for n in lengths]
    assert longest[0].confidence == pytest.approx(1 / sum(gaps), abs=1e-6)


def test_words_and_length_alone_are_learnt_from_ranked_answers() -> None:
    train = [ranked("a long and patient answer", "short", number=n) for n in range(20)]
    words = PreferredWords(train, seed=0)
    (answer,) = words.answer([ranked("some other words at great length", "no", number=99)])
    assert answer.answer == "some other words at great length" and answer.confidence is not None
    assert answer.confidence > 0.5 and answer.prompt is None
    (turned,) = words.answer([ranked("no", "some other words at great length", number=99)])
    assert turned.answer == answer.answer  # it does not know which one was preferred


def test_a_classifier_answers_with_a_label_and_its_probability(home: Path) -> None:
    tiny_run.write_recipe(
        home / "labels", home / "model", method="classify", train={"epochs": 6, "learning_rate": 0.01}
    )
    run = Run(
        load_recipe(home / "labels/recipe.yaml", {"candidates": ["scratch", "tuned"]}), home / "labels/run"
    )
    scores = run.evaluate()["candidates"]
    rows = run.record.read_jsonl("predictions/tuned.jsonl")
    assert {row["answer"] for row in rows} <= {"good", "bad"}
    assert all(0.5 <= row["confidence"] <= 1 and row["answer_tokens"] == 0 for row in rows)
    assert scores["tuned"]["n"] == len(rows)
    losses = [line["loss"] for line in run.record.read_jsonl("train/metrics.jsonl") if "loss" in line]
    assert losses[-1] < 0.1 < losses[0]  # what it was shown it knows
    assert run.record.read_json("calibration.json")


def test_defaults_of_a_run_with_a_head() -> None:
    recipe = parse_recipe({"model": "m", "data": "d.jsonl", "method": "reward"}, base=Path())
    assert recipe.candidates == ("prompt", "scratch", "tuned") and recipe.probes == ()
    assert recipe.train.replay == 0 and recipe.grader == "string_check" and not recipe.selects_by_score
    patient = parse_recipe(
        {"model": "m", "data": "d.jsonl", "method": "classify", "train": {"patience": 1}}, base=Path()
    )
    assert not patient.selects_by_score and patient.grader is None
    asked = {"patience": 1, "select": "score"}
    scored = parse_recipe(
        {"model": "m", "data": "d.jsonl", "method": "classify", "train": asked}, base=Path()
    )
    assert scored.selects_by_score
