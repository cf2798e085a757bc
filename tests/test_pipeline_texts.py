"""A recipe for plain text from the corpus to the report: scores, perplexity, probes, what it refuses."""

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
from peft import PeftModel

import luthier.probes
from luthier.errors import DataError
from luthier.pipeline import Run
from luthier.pipeline.stages import read_split
from luthier.recipe import load_recipe


def write_corpus(path: Path, count: int = 60) -> Path:
    """Paragraphs about things in places, some of two lines; no two are alike."""
    dice = random.Random(0)
    texts = []
    for number in range(count):
        place, thing = dice.choice(tiny_run.PLACES), dice.choice(tiny_run.THINGS)
        mood = dice.choice(tiny_run.MOODS[("good", "bad")[number % 2]])
        text = f"No. {number * 37}: the {thing} from the {place} was {mood}"
        texts.append(text + "\nand so it stayed." * (number % 3 == 0))
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        write_corpus(folder / "corpus.txt")
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            data="corpus.txt",
            system=None,
            grader=None,
            shots=None,
            method={"kind": "cpt", "block": 24},
            train={"epochs": 3, "learning_rate": 0.01, "batch_tokens": 400, "replay": 0.1},
        )
        yield folder


@pytest.fixture(scope="module")
def done(home: Path) -> Run:
    run = Run(load_recipe(home / "recipe.yaml"), home / "run")
    run.all()
    return run


def rows(run: Run, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.record / name).read_text(encoding="utf-8").splitlines()]


def test_the_score_is_the_probability_per_token(done: Run) -> None:
    """Against the model's own logits, for base and tuned, piece by piece."""
    test = read_split(done.record).test
    model = done.tuned()
    assert isinstance(model, PeftModel)
    chat = done.chat
    for name in ("prompt", "tuned"):
        found = {row["id"]: row for row in rows(done, f"predictions/{name}.jsonl")}
        assert set(found) == {example.id for example in test}
        for example in test[:6]:
            ids = list(chat.text(example.answer).ids)
            total = 0.0
            for at in range(0, len(ids) - 1, 23):  # 24 tokens, of which the first is read only
                piece = torch.tensor([ids[at : at + 24]])
                with torch.no_grad():
                    if name == "prompt":
                        with model.disable_adapter():
                            logits = model(input_ids=piece).logits[0, :-1]
                    else:
                        logits = model(input_ids=piece).logits[0, :-1]
                logps = torch.log_softmax(logits.double(), 1)
                total += float(logps.gather(1, piece[0, 1:, None]).sum())
            row = found[example.id]
            assert row["detail"]["tokens"] == len(ids) - 1
            assert row["detail"]["logprob"] == pytest.approx(total, rel=1e-4)
            assert row["score"] == pytest.approx(math.exp(total / (len(ids) - 1)), rel=1e-4)
            assert (row["input"], row["reference"], row["prompt"]) == ("", example.answer, None)


def test_scores_are_paired_and_perplexity_stands_beside(done: Run) -> None:
    scores = done.record.read_json("scores.json")
    assert (scores["metric"], scores["grader"]) == ("probability per token", "likelihood")
    assert list(scores["candidates"]) == ["prompt", "tuned"]
    (pair,) = scores["paired"]
    assert (pair["a"], pair["b"]) == ("tuned", "prompt")
    assert pair["difference"] > 0.003 and pair["p_adjusted"] < 0.01  # it learnt something of the corpus
    values = {}
    for name, row in scores["candidates"].items():
        detail = [r["detail"] for r in rows(done, f"predictions/{name}.jsonl")]
        tokens = sum(d["tokens"] for d in detail)
        perplexity = math.exp(-sum(d["logprob"] for d in detail) / tokens)
        assert row["perplexity"]["value"] == pytest.approx(perplexity)
        assert row["perplexity"]["tokens"] == tokens
        assert row["perplexity"]["low"] < perplexity < row["perplexity"]["high"]
        assert 0 < row["score"] < 1 and row["n"] == len(detail) and row["unscored"] == 0
        values[name] = perplexity
    assert values["tuned"] < 0.8 * values["prompt"]
    assert scores["constant"] is None and done.record.read_json("failures.json") == {}


def test_pieces_are_trained_and_the_bases_own_words_beside(done: Run) -> None:
    summary = done.record.read_json("train/summary.json")
    train = read_split(done.record).train
    pieces = sum(-(-(len(done.chat.text(e.answer).ids) - 1) // 23) for e in train)
    assert summary["method"] == "cpt" and summary["replayed"] > 0
    assert summary["executed_tokens"] > 0
    steps = rows(done, "train/metrics.jsonl")
    losses = [line["loss"] for line in steps if "loss" in line]
    held = [line["validation_loss"] for line in steps if "validation_loss" in line]
    assert losses[-1] < losses[0] and held[-1] < held[0]
    assert all(line["validation_score"] is None for line in steps if "validation_loss" in line)
    assert pieces > len(train)


def test_what_it_cost_is_probed_as_ever(done: Run) -> None:
    for name in ("own_text", "forgetting"):
        probe = done.record.read_json(f"probes/{name}.json")
        assert probe["finding"] in ("within_margin", "worse", "not_powered")
        assert probe["difference"] is not None and probe["n"] > 0
    verdict = done.record.read_json("verdict.json")
    assert {gate["name"] for gate in verdict["gates"]} == {"gain", "forgetting", "own_text", "data"}
    assert not (done.record / "calibration.json").exists()
    assert not (done.record / "answers/tuned-validation.jsonl").exists()


def test_report_and_card_speak_of_texts(done: Run) -> None:
    report = (done.record / "report.html").read_text(encoding="utf-8")
    card = (done.record / "card.md").read_text(encoding="utf-8")
    for page in (report, card):
        assert "probability per token" in page
    perplexity = done.record.read_json("scores.json")["candidates"]["tuned"]["perplexity"]["value"]
    assert f"tuned {perplexity:.3f}" in card and "lower is better" in card
    assert "perplexity " in report  # in the place of answers
    assert 'tokenizer("...", return_tensors="pt")' in card and "apply_chat_template" not in card
    assert "nothing is asked" in card  # checks that had nothing to look at are told


def test_a_finished_run_does_nothing_again(done: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted((done.record / "answers").glob("*.jsonl"))}
    again = Run.open(done.record.path)
    again.evaluate()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_block_measures_both_again(home: Path, done: Run) -> None:
    recipe = load_recipe(home / "recipe.yaml", {"method": {"kind": "cpt", "block": 1024}, "probes": []})
    run = Run(recipe, home / "whole")
    scores = run.evaluate()
    old = done.record.read_json("scores.json")["candidates"]["prompt"]["perplexity"]
    new = scores["candidates"]["prompt"]["perplexity"]
    assert new["tokens"] == old["tokens"]  # every token is measured once, whatever the cut
    assert new["value"] != old["value"]


def test_a_learning_curve_of_texts(home: Path) -> None:
    train = {"epochs": 1, "learning_rate": 0.01, "batch_tokens": 800, "replay": 0.0}
    changes = {"learning_curve": True, "probes": [], "train": train}
    run = Run(load_recipe(home / "recipe.yaml", changes), home / "curve")
    curve = run.learning_curve()
    assert curve is not None and len(curve["points"]) == 3
    assert all(0 < point["score"] < 1 for point in curve["points"])


def test_the_other_kind_of_data_is_refused_before_any_work(home: Path, tmp_path: Path) -> None:
    chats = Run(load_recipe(home / "recipe.yaml", {"data": str(home / "tickets.jsonl")}), tmp_path / "a")
    with pytest.raises(DataError, match="this is a conversation, and cpt learns plain text") as caught:
        chats.evaluate()
    assert "method: sft" in str(caught.value.fix) and "tickets.jsonl:" in str(caught.value.where)
    texts = Run(load_recipe(home / "recipe.yaml", {"method": "sft"}), tmp_path / "b")
    with pytest.raises(DataError, match="plain text without a request, and sft learns answers") as caught:
        texts.evaluate()
    assert "method: cpt" in str(caught.value.fix) and "corpus.txt:" in str(caught.value.where)
    assert not list((tmp_path / "a/answers").glob("*")) and not list((tmp_path / "b/answers").glob("*"))
