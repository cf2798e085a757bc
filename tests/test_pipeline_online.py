"""Methods that learn from their own answers, in a run: rollouts, rewards, what is watched, resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run

import luthier.probes
import luthier.train.loop
from luthier.errors import DataError, RecipeError, StoppedError
from luthier.methods.online import is_online
from luthier.pipeline import Run
from luthier.pipeline.rewarding import ROLLOUTS
from luthier.pipeline.stages import read_split
from luthier.recipe import load_recipe
from luthier.record import sha256_of

ONLINE = ("grpo", "rloo", "ppo", "best_of")
GRADER = '''
def share(answer, reference, example):
    """The share of an answer's characters that are letters from a to m."""
    return sum("a" <= c <= "m" for c in answer) / max(1, len(answer))


def sometimes(answer, reference, example):
    return None if answer and answer[0] > "z" else share(answer, reference, example)


def never(answer, reference, example):
    return None
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("online")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        (folder / "letters.py").write_text(GRADER, encoding="utf-8")
        tiny_run.write_examples(folder / "tickets.jsonl", 36)
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            grader="python:letters.py:share",
            candidates=["prompt", "tuned"],
            probes=[],
            max_new_tokens=6,
            train={"epochs": 2, "learning_rate": 0.01, "batch_tokens": 3000, "replay": 0.0},
        )
        yield folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train/metrics.jsonl").read_text().splitlines()]


def open_run(home: Path, name: str, **changes: Any) -> Run:
    return Run(load_recipe(home / "recipe.yaml", changes), home / name)


@pytest.mark.parametrize(
    ("kind", "epochs"),
    [("grpo", 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("rloo", 3), ("ppo", 8)))],
)
def test_the_reward_goes_up(home: Path, kind: str, epochs: int) -> None:
    train = {"epochs": epochs, "learning_rate": 0.03, "batch_tokens": 1500, "replay": 0.0}
    # several passes at such a rate would break a random model
    run = open_run(home, kind, method={"kind": kind, "samples": 8, "epochs": 1}, train=train)
    summary = run.train()
    steps = [line for line in lines(home / kind) if "reward" in line]
    assert summary["method"] == kind and len(steps) == summary["steps"]
    third = len(steps) // 3
    first, last = (sum(line["reward"] for line in part) / third for part in (steps[:third], steps[-third:]))
    assert last > first + 0.03, (first, last)
    assert all(0 <= line["finished"] <= 1 and line["length"] <= 7 for line in steps)
    assert abs(steps[0]["kl"]) < 1e-5 and steps[-1]["kl_k3"] > 0.01  # it starts where the base is
    assert (
        sum(line["kl"] for line in steps[-third:]) / third > 0.01
    )  # its own answers are likelier than before
    held = [line for line in lines(home / kind) if "validation_score" in line]
    assert len(held) == epochs and all(line["validation_loss"] is None for line in held)
    assert all(0 < line["validation_distinct"] <= 1 for line in held)
    assert summary["best_validation_score"] == max(line["validation_score"] for line in held)
    scores = run.evaluate()["candidates"]
    assert scores["tuned"]["score"] > scores["prompt"]["score"]


def test_every_answer_is_kept_to_be_read(home: Path) -> None:
    run = open_run(home, "kept", method={"kind": "grpo", "samples": 4}, train=once())
    summary = run.train()
    files = sorted((home / "kept" / ROLLOUTS).glob("*.jsonl"))
    assert [file.stem for file in files] == [f"{n + 1:06}" for n in range(summary["steps"])]
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    asked = [example.where for example in read_split(run.record).train]
    assert sorted(row["where"] for row in rows) == sorted(asked * 4)
    for row in rows:
        assert row["reward"] == sum("a" <= c <= "m" for c in row["answer"]) / max(1, len(row["answer"]))
        assert row["logprob"] < 0
    steps = [line for line in lines(home / "kept") if "reward" in line]
    assert sum(row["reward"] for row in rows) / len(rows) == pytest.approx(
        sum(line["reward"] for line in steps) / len(steps), abs=0.1
    )


def test_best_of_learns_from_finished_answers_or_not_at_all(home: Path) -> None:
    """A random model rarely ends an answer in six tokens: most steps have nothing to imitate."""
    summary = open_run(home, "best", method={"kind": "best_of", "samples": 8}, train=once()).train()
    steps = [line for line in lines(home / "best") if "reward" in line]
    assert len(steps) == summary["steps"]
    idle = [line for line in steps if line["loss"] is None]
    assert 0 < len(idle) < len(steps)
    assert all(line["grad_norm"] is None for line in idle)
    assert abs(steps[0]["kl"]) < 1e-5 and steps[-1]["kl"] > 0.01  # which nothing holds
    for line in steps:
        file = home / "best" / ROLLOUTS / f"{line['step']:06}.jsonl"
        rows = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()]
        finished = any(row["finished"] for row in rows)
        assert line["loss"] is None or finished


def once(**changes: Any) -> dict[str, Any]:
    return {"epochs": 1, "learning_rate": 0.01, "batch_tokens": 1500, "replay": 0.0} | changes


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_resumed_equals_uninterrupted(home: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luthier.train.loop, "CHECKPOINT_SECONDS", -1.0)
    asked: dict[str, Any] = {"method": {"kind": kind, "samples": 4}, "train": once()}
    open_run(home, f"{kind}-whole", **asked).train()
    rollouts = luthier.train.rollouts.Rollouts
    sample = rollouts._sample
    calls = 0

    def stop_at_third(self: Any, prompts: Any, step: int) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:  # the estimate samples first
            raise StoppedError("stopped")
        return sample(self, prompts, step)

    monkeypatch.setattr(rollouts, "_sample", stop_at_third)
    with pytest.raises(StoppedError):
        open_run(home, f"{kind}-stopped", **asked).train()
    monkeypatch.setattr(rollouts, "_sample", sample)
    assert list((home / f"{kind}-stopped/train/checkpoints").iterdir())
    open_run(home, f"{kind}-stopped", **asked).train()
    ours, theirs = home / f"{kind}-stopped", home / f"{kind}-whole"
    weights = "adapter/adapter_model.safetensors"
    assert sha256_of(ours / weights) == sha256_of(theirs / weights)
    assert tiny_run.without_times(lines(ours)) == tiny_run.without_times(lines(theirs))
    for file in sorted((theirs / ROLLOUTS).iterdir()):
        assert (ours / ROLLOUTS / file.name).read_text() == file.read_text()


def test_another_reward_than_the_grader(home: Path) -> None:
    asked = {"method": "rloo", "grader": "label", "train": once()}
    open_run(home, "label", reward="python:letters.py:share", **asked).train()
    held = [line for line in lines(home / "label") if "validation_score" in line]
    assert all(line["validation_reward"] > 0.1 and line["validation_score"] < 0.1 for line in held)
    before = sha256_of(home / "label/adapter/adapter_model.safetensors")
    open_run(home, "label", **asked).train()  # the reward decides what is trained
    assert sha256_of(home / "label/adapter/adapter_model.safetensors") != before


def test_an_answer_without_a_reward_is_not_learnt_from(home: Path) -> None:
    open_run(home, "sometimes", method="grpo", reward="python:letters.py:sometimes", train=once()).train()
    rows = [
        json.loads(line)
        for file in (home / "sometimes" / ROLLOUTS).glob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    unscored = [row for row in rows if row["reward"] is None]
    assert unscored and all("logprob" not in row for row in unscored)
    assert any(row["reward"] is not None for row in rows)


def test_rewards_that_never_come_stop_the_training(home: Path) -> None:
    with pytest.raises(Exception, match="could be scored, so nothing can be learnt"):
        open_run(home, "never", method="grpo", reward="python:letters.py:never", train=once()).train()


def test_replayed_answers_are_imitated_beside(home: Path) -> None:
    summary = open_run(home, "replay", method="grpo", train=once(replay=0.2), canaries=1).train()
    assert summary["replayed"] > 0 and summary["steps"] > 0


def test_a_prompt_without_room_for_its_answer_is_refused(home: Path) -> None:
    with pytest.raises(DataError, match=r"with room for an answer of 1000, does not fit the model's 1024"):
        open_run(home, "room", method="grpo", max_new_tokens=1000, train=once()).train()


def test_reward_is_for_online_methods(home: Path) -> None:
    with pytest.raises(RecipeError, match="methods that learn from their own answers"):
        load_recipe(home / "recipe.yaml", {"reward": "label"})
    with pytest.raises(RecipeError, match=r"did you mean 'method\.samples'"):
        load_recipe(home / "recipe.yaml", {"method": {"kind": "grpo", "sample": 4}})


def test_which_methods_are_online(home: Path) -> None:
    from luthier.methods import build_method

    for kind in ("sft", "dpo", "kto", "reward", *ONLINE):
        recipe = load_recipe(home / "recipe.yaml", {"method": kind, "grader": None})
        assert is_online(build_method(recipe.method)) == (kind in ONLINE)
        assert recipe.selects_by_score == (kind in ONLINE)


def test_an_unpaired_test_side_cannot_test_a_reward_model(home: Path) -> None:
    with pytest.raises(DataError, match="no rejected answer"):
        recipe = tiny_run.write_recipe(home / "unpaired", home / "model", grader=None, method="reward")
        Run(load_recipe(recipe), home / "unpaired/run").evaluate()
