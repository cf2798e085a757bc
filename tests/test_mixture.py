"""A weighted mixture of tasks: how often each is seen, its split without leaks, its scores by task."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st

import luthier.probes
from luthier.chat import TrainingSequence
from luthier.errors import DataError, RecipeError
from luthier.examples.example import Example, Message
from luthier.methods import Item
from luthier.pipeline import Run
from luthier.pipeline.mixing import name_task, repeat_items
from luthier.pipeline.sources import Sources
from luthier.pipeline.stages import read_split
from luthier.recipe import load_recipe, parse_recipe, recipe_schema
from luthier.train.batches import batches_per_epoch, epoch_batches, epoch_tokens
from luthier.train.work import plan_training

WEIGHTS = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.25])


def item(tokens: int, repeats: float) -> Item:
    return Item(
        f"f:{tokens}", (TrainingSequence((5,) * tokens, (0.0,) + (1.0,) * (tokens - 1)),), repeats=repeats
    )


# --- how often ------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(2, 30), WEIGHTS), min_size=1, max_size=25),
    st.integers(1, 200),
    st.integers(0, 3),
)
def test_every_item_as_often_as_its_task_says(
    made: list[tuple[int, float]], batch_tokens: int, seed: int
) -> None:
    items = [item(2, 1.0), *(item(tokens, repeats) for tokens, repeats in made)]
    seen: Counter[int] = Counter()
    groups = Counter(own.repeats for own in items)
    for epoch in range(20):
        batches = epoch_batches(items, batch_tokens=batch_tokens, seed=seed, epoch=epoch)
        assert len(batches) == batches_per_epoch(items, batch_tokens) and all(batches)
        own = Counter(i for batch in batches for i in batch)
        for repeats, count in groups.items():
            times = sum(n for i, n in own.items() if items[i].repeats == repeats)
            assert abs(times - count * repeats) < 1  # a task has its share in every epoch
        assert all(abs(own[i] - items[i].repeats) < 1 for i in range(len(items)))
        seen += own
    for place, one in enumerate(items):
        assert abs(seen[place] - 20 * one.repeats) < 1 + 1e-9  # and nobody is left out over epochs


def test_by_hand() -> None:
    """Two tasks of four: one twice in every epoch, of the other one a turn: all of them in four epochs."""
    items = [item(10, 2.0)] * 4 + [item(20, 0.25)] * 4
    assert epoch_tokens(items) == 100
    assert batches_per_epoch(items, 25) == 4
    turns = []
    for epoch in range(4):
        own = Counter(
            i for batch in epoch_batches(items, batch_tokens=25, seed=0, epoch=epoch) for i in batch
        )
        assert [own[i] for i in range(4)] == [2] * 4
        turns += [i for i in range(4, 8) if own[i]]
        assert own.total() == 9
    assert sorted(turns) == [4, 5, 6, 7]
    same = [epoch_batches(items, batch_tokens=25, seed=0, epoch=2) for _ in range(2)]
    assert same[0] == same[1] != epoch_batches(items, batch_tokens=25, seed=1, epoch=2)


def test_steps_are_of_even_size_and_the_plan_counts_what_is_seen() -> None:
    items = [item(10, 2.0)] * 6 + [item(10, 0.5)] * 8
    settings = parse_recipe({"model": "m", "data": "d", "train": {"batch_tokens": 40}}, base=Path()).train
    batches = epoch_batches(items, batch_tokens=40, seed=0, epoch=0)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]
    plan = plan_training(items, [], settings, seed=0, micro_tokens=64, shares=lambda one: True)
    assert (plan.steps, plan.tokens, plan.trained_tokens) == (12, 3 * 160, 3 * 144)


def test_plain_items_are_as_they_were() -> None:
    """Without weights no order changes: runs of other versions can be resumed."""
    items = [item(n, 1.0) for n in range(2, 14)]
    order = list(range(12))
    random.Random("3/1").shuffle(order)
    batches = epoch_batches(items, batch_tokens=30, seed=3, epoch=1)
    assert [i for batch in batches for i in batch] == order
    assert epoch_tokens(items) == sum(range(2, 14))


# --- the recipe and its files ---------------------------------------------------------------------


def made(data: Any, base: Path = Path("/home/ada"), **changes: Any) -> Any:
    return parse_recipe({"model": "m", "data": data} | changes, base=base)


def test_a_list_of_tasks_and_the_way_back() -> None:
    tasks = [{"file": "triage.jsonl", "weight": 2}, {"file": "sub/sums.csv.gz", "name": "sums"}]
    recipe = made(tasks)
    assert [(t.task, t.weight, t.file) for t in recipe.data.tasks] == [
        ("triage", 2.0, "/home/ada/triage.jsonl"),
        ("sums", 1.0, "/home/ada/sub/sums.csv.gz"),
    ]
    assert recipe.slices == ("task",)
    assert made({"train": tasks, "validation": "v.jsonl"}).data.tasks == recipe.data.tasks
    assert made(tasks, slices=["topic"]).slices == ("topic",)
    assert made({"train": tasks, "test": "t.jsonl"}).slices == ()  # those may have no tasks
    assert made(recipe.model_dump(mode="json")["data"]) == recipe
    assert made("d.jsonl").data.tasks == () and made("d.jsonl").slices == ()
    import jsonschema

    validator = jsonschema.Draft202012Validator(recipe_schema())
    assert not list(validator.iter_errors({"model": "m", "data": tasks}))
    assert not list(validator.iter_errors({"model": "m", "data": {"train": tasks, "test": "t"}}))
    assert list(validator.iter_errors({"model": "m", "data": [{"file": "x", "weigth": 2}]}))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([{"file": "a.jsonl"}, {"file": "b/a.csv"}], "two tasks are called 'a'"),
        ([{"file": "a.jsonl", "weight": 0.5}], "at least one task with a weight of 1 or more"),
        ([{"file": "a.jsonl", "wieght": 2}], "unknown key 'data.train.0.wieght'"),
        ([{"weight": 2}], "missing key 'data.train.0.file'"),
        ([{"file": "a.jsonl", "weight": 0}], "data.train.0.weight"),
        ([], "at least one task"),
        ({"train": 5}, "data.train: expected a text"),
    ],
)
def test_mistakes(data: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told) as caught:
        made(data)
    if "wieght" in told:
        assert "did you mean 'data.train.0.weight'" in str(caught.value.fix)


def test_a_learning_curve_has_no_tasks() -> None:
    with pytest.raises(RecipeError, match="learning_curve knows no tasks"):
        made([{"file": "a.jsonl"}], learning_curve=True)


def example_of(number: int, **fields: Any) -> Example:
    said = (Message("user", f"q{number}"), Message("assistant", "a"))
    return Example(f"id{number}", said, "a.jsonl", number, fields=fields)


def test_examples_carry_their_task_and_ids_of_their_own() -> None:
    taken: set[str] = set()
    first = name_task([example_of(1, topic="x"), example_of(2)], "one", taken)
    second = name_task([example_of(2), example_of(3)], "two", taken)
    assert [dict(e.fields) for e in (*first, *second)] == [
        {"topic": "x", "task": "one"},
        *({"task": task} for task in ("one", "two", "two")),
    ]
    assert [e.id for e in (*first, *second)] == ["id1", "id2", "id2-two", "id3"]
    with pytest.raises(DataError, match="column 'task' already") as caught:
        name_task([example_of(4, task="mine")], "three", taken)
    assert caught.value.where == "a.jsonl:4"


def test_items_repeat_as_their_examples_task_weighs() -> None:
    recipe = made([{"file": "a.jsonl", "weight": 3}, {"file": "b.jsonl", "weight": 0.5}])
    examples = [example_of(1, task="a"), example_of(2, task="b"), example_of(3)]
    items = [Item(e.where, ()) for e in (*examples, examples[0])] + [Item("canary 1", ())]
    assert [i.repeats for i in repeat_items(recipe, examples, items)] == [3.0, 0.5, 1.0, 3.0, 1.0]
    assert repeat_items(made("d.jsonl"), examples, items) == items


# --- a run ----------------------------------------------------------------------------------------


def write_task(path: Path, count: int, ask: str, *, seed: int) -> None:
    """Remarks with a request before them; the remarks of both tasks are the same for the same number."""
    dice = random.Random(seed)
    rows = []
    for number in range(count):
        label = ("good", "bad")[number % 2]
        where, thing = dice.choice(tiny_run.PLACES), dice.choice(tiny_run.THINGS)
        mood = dice.choice(tiny_run.MOODS[label])
        text = f"{ask} No. {number * 37}: the {thing} from the {where} was {mood}"
        rows.append(
            {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mixture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        write_task(folder / "mood.jsonl", 40, "Mood?", seed=0)
        write_task(folder / "tone.jsonl", 40, "Mood?", seed=1)  # some remarks are near-duplicates across
        with (folder / "tone.jsonl").open("a", encoding="utf-8") as file:
            file.write((folder / "mood.jsonl").read_text(encoding="utf-8").splitlines()[0] + "\n")
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            data=[{"file": "mood.jsonl", "weight": 2}, {"file": "tone.jsonl", "weight": 0.5}],
            candidates=["prompt", "tuned"],
            probes=[],
            train={"epochs": 2, "learning_rate": 0.01, "batch_tokens": 800, "replay": 0.0},
        )
        yield folder


@pytest.fixture(scope="module")
def done(home: Path) -> Run:
    run = Run(load_recipe(home / "recipe.yaml"), home / "run")
    run.all()
    return run


def test_both_files_are_read_into_one_split_without_leaks(done: Run) -> None:
    split = read_split(done.record)
    sides = split.sides()
    examples = [e for side in sides.values() for e in side]
    assert Counter(e.fields["task"] for e in examples) == {"mood": 40, "tone": 41}
    assert len({e.id for e in examples}) == 81
    shared = [name for name, side in sides.items() for e in side if e.input == examples[0].input]
    assert len(set(shared)) == 1
    for one in ("train", "validation", "test"):
        for other in {"train", "validation", "test"} - {one}:
            assert not {e.input for e in sides[one]} & {e.input for e in sides[other]}
    copies = [e for e in examples if e.where.endswith("tone.jsonl:41")]
    assert copies[0].id.endswith("-tone")
    sources = done.record.read_json("data/manifest.json")["sources"]
    assert [(s["side"], s["examples"]) for s in sources] == [("train/mood", 40), ("train/tone", 41)]
    audit = done.record.read_json("audit.json")
    assert not [f for f in audit["findings"] if f["check"] == "leakage"]


def test_training_sees_the_tasks_as_they_weigh(done: Run) -> None:
    train = read_split(done.record).train
    summary = done.record.read_json("train/summary.json")
    tokens = {"mood": 0, "tone": 0}
    for example in train:
        (sequence,) = done.chat.training(example, "Say good or bad.")
        tokens[example.fields["task"]] += len(sequence.ids)
    expected = 2 * (2 * tokens["mood"] + 0.5 * tokens["tone"])
    assert summary["tokens"] == pytest.approx(expected, rel=0.05)
    assert summary["tokens"] > 1.15 * 2 * sum(tokens.values())
    assert done.record.read_json("train/plan.json")["estimate"]["tokens"] == pytest.approx(expected, abs=2)


def test_scores_by_task(done: Run) -> None:
    scores = done.record.read_json("scores.json")
    test = read_split(done.record).test
    rows = {(row["value"], row["candidate"]): row for row in scores["slices"]["scores"]}
    assert set(rows) == {(task, name) for task in ("mood", "tone") for name in ("prompt", "tuned")}
    for task in ("mood", "tone"):
        count = sum(e.fields["task"] == task for e in test)
        assert rows[task, "tuned"]["n"] + rows[task, "tuned"]["unscored"] == count
    assert "task" in (done.record / "report.html").read_text(encoding="utf-8")


def test_another_weight_trains_again_and_answers_nothing_else_again(home: Path, done: Run) -> None:
    base = done.record.output_hash("answer-prompt")
    adapter = done.record.output_hash("train")
    data = [{"file": str(home / "mood.jsonl")}, {"file": str(home / "tone.jsonl")}]
    again = Run(load_recipe(home / "recipe.yaml", {"data": data}), home / "run")
    before = (home / "run/answers/prompt.jsonl").stat().st_mtime_ns
    again.evaluate()
    assert again.record.output_hash("answer-prompt") == base
    assert (home / "run/answers/prompt.jsonl").stat().st_mtime_ns == before
    assert again.record.output_hash("train") != adapter


def test_sources_of_one_file_are_as_they_were(home: Path) -> None:
    sources = Sources(made(str(home / "mood.jsonl")).data)
    assert list(sources.hashes) == ["train"] and len(sources.examples["train"]) == 40
    assert all("task" not in e.fields for e in sources.examples["train"])
