"""Recipes whose model is an encoder: from examples to a verdict, and what is said where it cannot follow."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_encoders import POSITIONS, word_pieces, write_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import luthier
import luthier.models
from luthier.cli import talking
from luthier.cli.checking import check_source
from luthier.cli.main import app
from luthier.errors import DataError, ModelError
from luthier.models.encoder import longest_text
from luthier.models.load import load_model, reads_only
from luthier.pipeline import Run
from luthier.pipeline.encoders import read_items, read_requests
from luthier.pipeline.stages import read_split
from luthier.progress import Silent

KEYS = {"billing": ("invoice", "refund"), "parcel": ("courier", "delivery"), "login": ("password", "account")}
FILLING = (
    "please",
    "today",
    "again",
    "hello",
    "still",
    "the",
    "about",
    "my",
    "was",
    "it",
    "lost",
    "and",
    "no",
)
TRAIN = {"epochs": 8, "learning_rate": 0.01, "batch_tokens": 120}


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def write_rows(path: Path, count: int = 240) -> list[str]:
    """Requests of filling words around one word that tells the label; returns their texts."""
    dice = random.Random(0)
    rows = []
    for number in range(count):
        label = list(KEYS)[number % 3]
        words = dice.sample(FILLING, 4)
        words.insert(dice.randrange(5), dice.choice(KEYS[label]))
        rows.append({"prompt": " ".join(words), "completion": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [row["prompt"] for row in rows]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        write_rows(folder / "rows.jsonl")
        yield folder


def write_recipe(home: Path, kind: str = "bert", **changes: Any) -> Path:
    """A recipe beside a model of a kind, both written where they are not there."""
    if not (home / kind).is_dir():
        rows = [json.loads(line)["prompt"] for line in (home / "rows.jsonl").read_text().splitlines()]
        write_encoder(kind, home / kind, word_pieces(rows))
    recipe = {"model": kind, "data": "rows.jsonl", "method": "classify", "train": TRAIN, **changes}
    path = home / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def classified(home: Path, kind: str = "bert", *, name: str | None = None, **changes: Any) -> Run:
    """A finished run."""
    recipe = luthier.load_recipe(write_recipe(home, kind, **changes))
    run = Run(recipe, home / f"run-{name or kind}", Notes())
    run.all()
    return run


@pytest.fixture(scope="module")
def bert(home: Path) -> Run:
    return classified(home)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind",
    [
        "bert",
        "modernbert",
        *(pytest.param(k, marks=SLOW) for k in ("roberta", "distilbert", "deberta-v2", "albert")),
    ],
)
def test_it_learns_and_is_compared(kind: str, home: Path, bert: Run) -> None:
    train = TRAIN | ({"epochs": 16} if kind == "albert" else {})  # one layer, many times
    run = bert if kind == "bert" else classified(home, kind, train=train)
    scores = run.record.read_json("scores.json")
    assert set(scores["candidates"]) == {"scratch", "tuned"}
    assert scores["candidates"]["tuned"]["score"] >= 0.9  # a third by chance
    assert scores["constant"]["score"] < 0.5 and scores["constant"]["low"] > 0.3
    rows = run.record.read_jsonl("predictions/tuned.jsonl")
    assert {row["answer"] for row in rows} <= set(KEYS)
    assert all(1 / 3 < row["confidence"] <= 1 and row["answer_tokens"] == 0 for row in rows)
    tried = {row["kind"]: row["score"] for row in scores["search"]["scratch"]["tried"]}
    assert tried["ngrams"] == 1.0 and tried["probe"] > 0.5  # on what the random encoder sees
    assert run.record.read_json("calibration.json")["n"] == len(rows)
    assert not (run.record / "probes").exists()
    summary = run.record.read_json("train/summary.json")
    assert summary["encoder"] and summary["labels"] == sorted(KEYS)
    assert summary["executed_tokens"] == summary["tokens"]  # nothing is shared


def test_what_cannot_be_is_said_once_and_left_out(bert: Run) -> None:
    assert isinstance(bert.show, Notes)
    (said,) = [note for note in bert.show.said if "encoder" in note]
    assert "bert is an encoder, which writes nothing: without prompt, few_shot, retrieval" in said
    assert "without probes" in said and "a row of its own" in said
    again = Run.open(bert.record.path, Notes())
    assert again.recipe.candidates == ("scratch", "tuned")
    card = (bert.record / "card.md").read_text(encoding="utf-8")
    assert "candidate prompt: An encoder writes no answers." in card
    assert 'inputs = tokenizer("...", return_tensors="pt")' in card
    assert "AutoModelForSequenceClassification" in card and "apply_chat_template" not in card
    assert "text-classification" in card


def test_a_finished_run_is_not_done_again(bert: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load_model", "attach_adapter", "load_adapter"):
        monkeypatch.setattr(luthier.models, name, lambda *a, **k: pytest.fail("worked again"))
    for run in (
        Run.open(bert.record.path),
        Run(luthier.load_recipe(write_recipe(home)), bert.record.path),  # which still names the writers
    ):
        assert run.all()["decision"] == bert.record.read_json("verdict.json")["decision"]


def test_what_was_saved_answers_as_what_was_trained(bert: Run) -> None:
    before = bert.record.read_jsonl("predictions/tuned.jsonl")
    (bert.record / ".stages/answer-tuned.json").unlink()
    again = Run.open(bert.record.path)
    again.all()
    after = again.record.read_jsonl("predictions/tuned.jsonl")
    assert [row["answer"] for row in after] == [row["answer"] for row in before]
    assert [row["confidence"] for row in after] == pytest.approx(
        [row["confidence"] for row in before], abs=1e-6
    )


@pytest.mark.parametrize("adapter", ["lora", pytest.param("full", marks=SLOW)])
def test_others_give_the_same_answers_with_the_export(
    adapter: str, home: Path, bert: Run, tmp_path: Path
) -> None:
    train = TRAIN | {"learning_rate": 2e-3}
    run = bert if adapter == "lora" else classified(home, name="full", adapter={"kind": "full"}, train=train)
    folder = Run.open(run.record.path).export(out=tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row in run.record.read_jsonl("predictions/tuned.jsonl")[:6]:
        with torch.inference_mode():
            chances = model(**tokenizer(row["prompt"], return_tensors="pt")).logits.softmax(-1)[0]
        assert model.config.id2label[int(chances.argmax())] == row["answer"]
        assert float(chances.max()) == pytest.approx(row["confidence"], abs=1e-5)
    if adapter == "full":
        assert run.record.read_json("scores.json")["candidates"]["tuned"]["score"] >= 0.9


def test_chat_names_the_label(bert: Run, capsys: pytest.CaptureFixture[str]) -> None:
    job = Run.open(bert.record.path)
    label, chance = talking._label(job, "hello my refund was lost again")
    assert label == "billing" and chance > 0.5
    with talking.console.capture() as shown:
        talking.talk(job, "hello my refund was lost again")
    assert f"billing ({chance:.0%})" in shown.get()


def test_check_shows_no_mask(bert: Run) -> None:
    with talking.console.capture() as shown:
        check_source(bert.record.path, None, show_mask=True, model="")
    assert "no token of them is trained" in " ".join(shown.get().split())


def test_requests_are_read_as_they_were_trained(bert: Run) -> None:
    from luthier.methods import Classify

    examples = read_split(bert.record).test[:5]
    items = read_items(Classify(tuple(sorted(KEYS))), bert.models, examples, "Which queue?")
    asked = read_requests(bert.models, examples, "Which queue?")
    assert [list(item.sequences[0].ids) for item in items] == [ids for _, ids in asked]
    assert asked[0][0] == f"Which queue?\n{examples[0].input}"


@pytest.mark.parametrize("method", ["sft", "dpo", "reward", "grpo", "cpt"])
def test_other_methods_are_refused_before_any_work(method: str, home: Path, tmp_path: Path) -> None:
    recipe = luthier.load_recipe(write_recipe(home, method=method))
    with pytest.raises(
        ModelError, match=f"an encoder .* method {method} needs a model that writes"
    ) as caught:
        Run(recipe, tmp_path / "run").all()
    assert caught.value.fix and "method: classify" in caught.value.fix
    assert not (tmp_path / "run/audit.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": {"kind": "prefix"}}, "adapter.kind prefix puts virtual tokens"),
        ({"candidates": ["prompt", "few_shot"]}, "nothing is compared but prompt, few_shot"),
    ],
)
def test_what_else_an_encoder_cannot(changes: dict[str, Any], said: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        Run(luthier.load_recipe(write_recipe(home, **changes)), tmp_path / "run").check()


def test_an_encoder_is_told_by_its_configuration(home: Path, tmp_path: Path) -> None:
    write_recipe(home)
    assert reads_only(str(home / "bert")) and not reads_only("smollm2-135m")
    with pytest.raises(ModelError, match="bert is an encoder: it reads whole texts"):
        load_model(str(home / "bert"))
    config = json.loads((home / "bert/config.json").read_text(encoding="utf-8"))
    for key in ("is_decoder", "is_encoder_decoder"):
        (tmp_path / "config.json").write_text(json.dumps(config | {key: True}), encoding="utf-8")
        assert not reads_only(str(tmp_path))


def test_texts_that_do_not_fit_are_named(home: Path, bert: Run, tmp_path: Path) -> None:
    """RoBERTa has positions for two fewer: it counts from behind its padding token, 0 here."""
    write_recipe(home, "roberta")
    limits = {}
    for kind in ("bert", "roberta"):
        tokenizer = AutoTokenizer.from_pretrained(home / kind)
        limits[kind] = longest_text(str(home / kind), tokenizer)
        model = luthier.models.encoder.load_encoder(str(home / kind), ("a", "b"), device="cpu").model
        model(input_ids=torch.full((1, limits[kind]), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, limits[kind] + 1), 5))
    assert limits == {"bert": POSITIONS, "roberta": POSITIONS - 1}
    tokenizer.model_max_length = 20
    assert longest_text(str(home / "roberta"), tokenizer) == 20
    write_rows(tmp_path / "test.jsonl", 12)
    with (tmp_path / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": "courier " * 200, "completion": "parcel"}) + "\n")
    data = {"train": "rows.jsonl", "test": str(tmp_path / "test.jsonl")}
    run = Run(luthier.load_recipe(write_recipe(home, data=data)), tmp_path / "run")
    audit = run.check()
    (found,) = [finding for finding in audit["findings"] if finding["check"] == "truncation"]
    assert found["message"] == "202 tokens, where 128 fit"
    with pytest.raises(DataError, match="a request of 202 tokens does not fit the model's 128") as caught:
        run.evaluate()
    assert caught.value.where == f"{tmp_path / 'test.jsonl'}:13"


def test_a_file_is_checked_with_its_tokens(
    bert: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the recipe of the encoder is: requests are counted, and one that it cannot take is found."""
    monkeypatch.chdir(tmp_path)
    long = {"prompt": " ".join(["word"] * 600), "completion": "red"}
    rows = (home / "rows.jsonl").read_text() + json.dumps(long) + "\n"
    (tmp_path / "rows.jsonl").write_text(rows)
    CliRunner().invoke(app, ["check", "rows.jsonl", "--model", str(home / "bert")], catch_exceptions=False)
    audit = json.loads((tmp_path / "checks/rows/audit.json").read_text())
    (cut,) = [finding for finding in audit["findings"] if finding["check"] == "truncation"]
    assert cut["examples"][0]["line"] == 241
    assert "The model is an encoder" in (tmp_path / "checks/rows/audit.html").read_text()
