"""Recipes with a preference method: trained end to end, replay beside, the reference, resumed, refused."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run

import luthier.probes
from luthier.chat import ChatFormat
from luthier.errors import DataError, RecipeError
from luthier.methods import DPO, KTO, ORPO, SFT, Item, SimPO, build_method
from luthier.pipeline import Run
from luthier.pipeline.learning_curve import write_curve
from luthier.pipeline.models import Models
from luthier.pipeline.referring import with_reference
from luthier.pipeline.sources import Sources
from luthier.pipeline.stages import read_split
from luthier.progress import Silent
from luthier.recipe import load_recipe, parse_recipe

OPPOSITE = {"good": "bad", "bad": "good"}


def write_pairs(path: Path, count: int = 60) -> Path:
    """Remarks about things, where the right label is chosen and the wrong one rejected."""
    dice = random.Random(0)
    rows = []
    for number in range(count):
        label = ("good", "bad")[number % 2]
        place, thing = dice.choice(tiny_run.PLACES), dice.choice(tiny_run.THINGS)
        mood = dice.choice(tiny_run.MOODS[label])
        text = f"No. {number * 37}: the {thing} from the {place} was {mood}"
        rows.append({"prompt": text, "chosen": label, "rejected": OPPOSITE[label]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("preferences")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        write_pairs(folder / "pairs.jsonl")
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            data="pairs.jsonl",
            candidates=["prompt", "tuned"],
            probes=[],
            train={"epochs": 2, "learning_rate": 0.01, "batch_tokens": 800, "replay": 0.0},
        )
        yield folder


def steps(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "train/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def open_run(home: Path, name: str, **changes: Any) -> Run:
    return Run(load_recipe(home / "recipe.yaml", changes), home / name)


def test_dpo_from_a_recipe_to_scores(home: Path) -> None:
    run = open_run(home, "dpo", method={"kind": "dpo", "beta": 0.5})
    summary = run.train()
    lines = [line for line in steps(home / "dpo") if "loss" in line]
    assert lines[0]["loss"] == pytest.approx(0.69314718, abs=1e-5)  # nothing has moved yet
    assert lines[-1]["loss"] < 0.6
    held = [line["validation_loss"] for line in steps(home / "dpo") if "validation_loss" in line]
    assert summary["best_validation_loss"] == min(held) < 0.6  # pairs that were not trained on, too
    assert summary["method"] == "dpo"
    assert summary["examples"] == len(read_split(run.record).train)
    assert summary["executed_tokens"] < 0.75 * summary["tokens"]  # the prompt is computed once for both
    scores = run.evaluate()
    assert scores["candidates"]["tuned"]["n"] == len(read_split(run.record).test)
    rows = [json.loads(line) for line in (home / "dpo/predictions/tuned.jsonl").read_text().splitlines()]
    test = {example.id: example for example in read_split(run.record).test}
    assert all(row["reference"] == test[row["id"]].answer for row in rows)


@pytest.mark.parametrize("kind", ["orpo", "simpo"])
def test_methods_without_a_reference(home: Path, kind: str) -> None:
    summary = open_run(home, kind, method=kind).train()
    losses = [line["loss"] for line in steps(home / kind) if "loss" in line]
    assert summary["method"] == kind
    assert losses[-1] < losses[0]


def test_replay_stands_beside_pairs_and_counts_like_them(home: Path) -> None:
    train = {"epochs": 3, "learning_rate": 0.01, "batch_tokens": 800, "replay": 0.2}
    summary = open_run(home, "replay", method="dpo", train=train, canaries=1).train()
    assert summary["replayed"] > 0
    losses = [line["loss"] for line in steps(home / "replay") if "loss" in line]
    third = len(losses) // 3
    assert losses[0] > 0.7  # replayed answers cost more than log 2
    assert sum(losses[-third:]) < sum(losses[:third])  # steps have different shares of them


def test_the_resolved_recipe_names_every_option(home: Path) -> None:
    recipe = load_recipe(home / "recipe.yaml", {"method": "dpo"})
    assert recipe.model_dump()["method"] == {
        "kind": "dpo",
        "beta": 0.1,
        "loss_type": "sigmoid",
        "label_smoothing": 0.0,
        "reference_free": False,
    }
    again = parse_recipe(recipe.model_dump(mode="json"), base=home)
    assert again.method == recipe.method
    assert load_recipe(home / "recipe.yaml").method == "sft"


@pytest.mark.parametrize(
    ("asked", "built"),
    [
        ("sft", SFT),
        ("dpo", DPO()),
        ({"kind": "dpo", "beta": 1, "loss_type": "ipo"}, DPO(beta=1.0, loss_type="ipo")),
        ({"kind": "dpo", "label_smoothing": 0.1, "reference_free": True}, DPO(0.1, "sigmoid", 0.1, True)),
        ("orpo", ORPO(beta=0.1)),
        ("kto", KTO(beta=0.1, desirable_weight="auto", undesirable_weight="auto")),
        ({"kind": "kto", "beta": 1, "desirable_weight": 2}, KTO(1.0, 2.0, "auto")),
        ({"kind": "simpo", "gamma": 0.5}, SimPO(beta=2.0, gamma=0.5)),
    ],
)
def test_a_recipe_says_which_method(asked: Any, built: Any) -> None:
    recipe = parse_recipe({"model": "m", "data": "d.jsonl", "method": asked}, base=Path())
    method = build_method(recipe.method)
    assert isinstance(method, SFT) if built is SFT else method == built


def test_the_reference_is_the_base_models_and_only_pairs_pay_for_it(home: Path) -> None:
    recipe = load_recipe(home / "recipe.yaml", {"method": "dpo"})
    models = Models(recipe.model, home / "none", Silent())
    examples = list(read_split(open_run(home, "dpo", method={"kind": "dpo", "beta": 0.5}).record).train)
    items = DPO().items(examples[:3], models.chat, None)
    plain = SFT().items(examples[3:4], models.chat, None)
    referred = with_reference(models, DPO(), [*items, *plain], Silent())
    from luthier.forest import logprobs

    for item in referred[:3]:
        rows = logprobs(models.base().model, [s.ids for s in item.sequences], share=False, needed=item.flags)
        assert item.reference == pytest.approx([row.sum().item() for row in rows], abs=1e-4)
        chosen, rejected = item.sequences
        assert chosen.ids[: chosen.prompt_tokens] == rejected.ids[: rejected.prompt_tokens]
        assert (item.wanted, chosen.ids == rejected.ids) == ((True, False), False)
    assert referred[3].reference == ()
    for method in (ORPO(), SimPO(), DPO(reference_free=True), SFT()):
        assert all(item.reference == () for item in with_reference(models, method, items, Silent()))


def test_each_rejected_answer_makes_a_pair_and_none_is_an_error(home: Path) -> None:
    recipe = load_recipe(home / "recipe.yaml")
    models = Models(recipe.model, home / "none", Silent())
    split = read_split(open_run(home, "dpo", method={"kind": "dpo", "beta": 0.5}).record)
    from dataclasses import replace

    two = replace(split.train[0], rejected=("no", "never"))
    items: list[Item] = ORPO().items([two], models.chat, "Say good or bad.")
    assert len(items) == 2 and items[0].sequences[0] == items[1].sequences[0]
    bare = replace(split.train[0], rejected=())
    for method in (DPO(), ORPO(), SimPO()):
        with pytest.raises(DataError, match="no rejected answer") as caught:
            method.items([bare], models.chat, None)
        assert caught.value.where == bare.where and "method: sft" in str(caught.value.fix)


def test_answers_that_should_not_be_given_are_on_no_side(home: Path, tmp_path: Path) -> None:
    run = Run(load_recipe(home / "recipe.yaml", {"data": str(judged(home, tmp_path))}), tmp_path / "run")
    run.split()
    split = read_split(run.record)
    manifest = json.loads((tmp_path / "run/data/manifest.json").read_text(encoding="utf-8"))
    for side, examples in split.sides().items():
        assert examples and all(example.wanted for example in examples)
        apart = split.unwanted[side]
        assert {e.input for e in apart} == {e.input for e in examples}  # a request is on one side
        assert not any(example.wanted for example in apart)
        assert manifest["sides"][side]["examples"] == manifest["sides"][side]["unwanted"] == len(examples)
        assert split.with_unwanted(side) == (*examples, *apart)


def judged(home: Path, folder: Path, bad: str | None = None) -> Path:
    """The pairs as answers that are judged one by one; the bad ones may all be one text."""
    rows = [json.loads(line) for line in (home / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    single = [
        {"prompt": row["prompt"], "completion": answer, "label": good}
        for row in rows
        for answer, good in ((row["chosen"], True), (bad or row["rejected"], False))
    ]
    path = folder / "judged.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in single), encoding="utf-8")
    return path


def losses_of(folder: Path) -> tuple[list[float], list[float]]:
    """Of training and of validation."""
    lines = steps(folder)
    found = ([line[name] for line in lines if name in line] for name in ("loss", "validation_loss"))
    first, second = found
    return first, second


@pytest.mark.parametrize("form", ["pairs", "judged"])
def test_kto_from_a_recipe_to_scores(
    home: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[float | None] = []
    plain = KTO.prepare

    def watched(method: KTO, items: Any, score: Any) -> list[Item]:
        prepared = plain(method, items, score)
        points.extend({item.baseline for item in prepared if item.wanted})
        return prepared

    monkeypatch.setattr(KTO, "prepare", watched)
    data = {"data": str(judged(home, tmp_path))} if form == "judged" else {}
    changes = {"method": {"kind": "kto", "beta": 0.5}, **data}
    run = Run(load_recipe(home / "recipe.yaml", changes), tmp_path / "run")
    summary = run.train()
    split = read_split(run.record)
    train, held = losses_of(tmp_path / "run")
    assert train[0] == pytest.approx(0.5, abs=1e-3)  # nothing has moved yet, and both kinds weigh the same
    assert train[-1] < 0.42
    assert max(held) < 0.42
    assert len(points) >= summary["steps"] + len(held)  # for each step and each validation
    assert points[0] == pytest.approx(0.0, abs=1e-3)
    assert all(point is not None and point >= 0 for point in points) and len(set(points)) > 3
    assert (summary["method"], summary["examples"]) == ("kto", len(split.train))
    assert summary["unwanted"] == (len(split.train) if form == "judged" else 0)
    gains = {True: 0.0, False: 0.0}
    from luthier.forest import score

    items = KTO().items(split.with_unwanted("test"), run.chat, run.recipe.system)
    asked, needed = [item.sequences[0].ids for item in items], [item.flags[0] for item in items]
    with run.models.untuned() as base:
        before = score(base, asked, needed=needed)
    for item, was, now in zip(items, before, score(run.tuned(), asked, needed=needed), strict=True):
        gains[item.wanted[0]] += float(now.sum() - was.sum()) / len(items)
    assert gains[True] > 0.5 and gains[True] > gains[False] + 1  # on requests that were not trained on
    scores = run.evaluate()
    assert scores["candidates"]["tuned"]["n"] == len(split.test)
    rows = [json.loads(line) for line in (tmp_path / "run/predictions/tuned.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {example.id for example in split.test}


VILE = "zxqvile"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every message that a chat template is given from now on."""
    seen: list[str] = []
    plain = ChatFormat._write

    def watched(self: ChatFormat, messages: Any, generation: bool) -> str:
        seen.extend(message["content"] for message in messages)
        return plain(self, messages, generation)

    monkeypatch.setattr(ChatFormat, "_write", watched)
    return seen


def test_no_stage_imitates_shows_or_asks_what_should_not_be_given(
    home: Path, tmp_path: Path, written: list[str]
) -> None:
    path = judged(home, tmp_path, bad=VILE)
    train = {"epochs": 1, "batch_tokens": 800, "replay": 0.2, "replay_data": str(path)}
    changes = {
        "data": str(path),
        "train": train,
        "candidates": ["prompt", "few_shot", "retrieval", "scratch", "tuned"],
        "probes": ["memorization", "overfitting"],
    }
    screen = Notes()
    run = Run(load_recipe(home / "recipe.yaml", changes), tmp_path / "run", screen)
    scores = run.evaluate()
    run.probe()
    split = read_split(run.record)
    assert run.recipe.method == "sft"
    assert len(split.unwanted["train"]) == len(split.train)
    assert any("good" in text for text in written)
    assert not any(VILE in text for text in written)
    assert scores["grader"] == "label" and scores["candidates"]["scratch"]["n"] == len(split.test)
    for name in run.recipe.candidates:
        assert VILE not in (tmp_path / f"run/predictions/{name}.jsonl").read_text(encoding="utf-8")
    note = next(note for note in screen.notes if note.startswith("training on"))
    assert note.startswith(f"training on {len(split.train)} examples")
    assert f"{len(split.train)} answers that should not be given are for `method: kto` alone" in note
    read = run.check()
    assert read["examples"] == 120 and not read["failed"]
    assert not {"label_conflict", "judgement_conflict", "exact_duplicate"} & {
        finding["check"] for finding in read["findings"]
    }


def test_kto_is_given_what_should_not_be_given(home: Path, tmp_path: Path, written: list[str]) -> None:
    changes = {"data": str(judged(home, tmp_path, bad=VILE)), "method": "kto"}
    train = {"epochs": 1, "batch_tokens": 800, "replay": 0.0}
    screen = Notes()
    run = Run(load_recipe(home / "recipe.yaml", changes | {"train": train}), tmp_path / "run", screen)
    run.train()
    assert VILE in written
    count = len(read_split(run.record).train)
    assert f"training on {count} examples, and {count} whose answer should not be given" in screen.notes


class Notes(Silent):
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("method", "form", "says", "fix"),
    [
        ("dpo", "judged", "there is no rejected answer", "method: kto"),
        ("orpo", "judged", "there is no rejected answer", "method: kto"),
        ("simpo", "plain", "there is no rejected answer", "method: sft"),
        ("kto", "plain", "no answer is marked as one not to give", "method: sft"),
    ],
)
def test_a_method_that_the_data_is_not_for_says_so(
    home: Path, tmp_path: Path, method: str, form: str, says: str, fix: str
) -> None:
    path = judged(home, tmp_path) if form == "judged" else tiny_run.write_examples(tmp_path / "plain.jsonl")
    run = Run(load_recipe(home / "recipe.yaml", {"data": str(path), "method": method}), tmp_path / "run")
    with pytest.raises(DataError, match=says) as caught:
        run.train()
    assert fix in str(caught.value.fix)
    assert str(path) in str(caught.value.where)


def test_too_few_good_answers_are_no_data_set(home: Path, tmp_path: Path) -> None:
    path = judged(home, tmp_path)
    rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*rows[:20], *rows[21::2]]) + "\n", encoding="utf-8")
    run = Run(load_recipe(home / "recipe.yaml", {"data": str(path), "method": "kto"}), tmp_path / "run")
    with pytest.raises(DataError, match="not counting answers that should not be given"):
        run.split()


@pytest.mark.parametrize(
    "options",
    [{"beta": 0}, {"desirable_weight": 0}, {"undesirable_weight": "much"}, {"label_smoothing": 0.1}],
)
def test_wrong_options_of_kto_are_refused(home: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        load_recipe(home / "recipe.yaml", {"method": {"kind": "kto", **options}})


def test_a_mismatch_that_the_model_cannot_take_is_left_out(home: Path) -> None:
    recipe = load_recipe(home / "recipe.yaml", {"method": "kto"})
    models = Models(recipe.model, home / "none", Silent())
    examples = list(read_split(open_run(home, "dpo", method={"kind": "dpo", "beta": 0.5}).record).train)[:4]
    items = KTO().items(examples, models.chat, None)
    lengths = [len(item.mismatch.sequence.ids) for item in items if item.mismatch is not None]
    assert len(lengths) == len(items) == 8
    referred = with_reference(models, KTO(), items, Silent(), longest=sorted(lengths)[3])
    from luthier.forest import logprobs

    kept = [item for item in referred if item.mismatch is not None]
    assert 4 <= len(kept) < 8
    for item in kept:
        assert item.mismatch is not None
        (own,) = logprobs(models.base().model, [item.mismatch.sequence.ids], needed=[item.mismatch.flags])
        assert item.mismatch.reference == pytest.approx(own.sum().item(), abs=1e-4)
    for item in referred:
        (own,) = logprobs(models.base().model, [item.sequences[0].ids], needed=item.flags)
        assert item.reference == pytest.approx((own.sum().item(),), abs=1e-4)


def test_the_learning_curve_keeps_a_share_of_what_should_not_be_given(home: Path, tmp_path: Path) -> None:
    changes = {"data": str(judged(home, tmp_path)), "method": "kto"}
    run = Run(load_recipe(home / "recipe.yaml", changes), tmp_path / "run")
    run.split()
    split = read_split(run.record)

    class Enough(Exception):  # noqa: N818
        pass

    def evaluate(recipe: Any, folder: Path) -> None:
        given = {side: Counter(e.wanted for e in own) for side, own in Sources(recipe.data).examples.items()}
        quarter, validation, test = (given[side] for side in ("train", "validation", "test"))
        assert quarter[True] == quarter[False] == round(0.25 * len(split.train))
        assert validation[True] == validation[False] == len(split.validation)
        assert test[True] == test[False] == len(split.test)
        raise Enough

    with pytest.raises(Enough):
        write_curve(run.record, run.recipe, evaluate)
