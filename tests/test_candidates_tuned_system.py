"""A tuned model with a system prompt of its own, and what a request costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run

import luthier
import luthier.probes
from luthier.candidates import seen_by_tuned, without_system
from luthier.errors import RecipeError
from luthier.evidence.evaluation import request_cost
from luthier.examples import Example, Message
from luthier.pipeline import Run
from luthier.recipe import parse_recipe
from luthier.recipe.candidate_options import Prices

BARE = (Message("user", "q"), Message("assistant", "a"))
OWN = Example("o", (Message("system", "Mine."), Message("developer", "Rules."), *BARE), "f", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tuned-system")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            candidates=["prompt", "tuned"],
            probes=[],
            train={"epochs": 1, "learning_rate": 0.01, "batch_tokens": 400, "select": "score"},
        )
        yield folder


def open_run(home: Path, folder: Path, **changes: Any) -> Run:
    return Run(luthier.load_recipe(home / "recipe.yaml", changes), folder)


def prompts(run: Run, name: str) -> list[str]:
    lines = (run.record / f"predictions/{name}.jsonl").read_text().splitlines()
    return [json.loads(line)["prompt"] for line in lines]


def recipe(**keys: Any) -> luthier.Recipe:
    return parse_recipe({"model": "m", "data": "d.jsonl", **keys}, base=Path("/"))


# --- who is told what -------------------------------------------------------------------------------


def test_the_system_prompt_of_each_candidate() -> None:
    same = recipe(system="Long.")
    assert [same.system_of(name) for name in ("prompt", "few_shot", "tuned")] == ["Long."] * 3
    shorter = recipe(system="Long.", tuned_system="Short.")
    assert [shorter.system_of(name) for name in ("prompt", "tuned")] == ["Long.", "Short."]
    none = recipe(system="Long.", tuned_system="")
    assert [none.system_of(name) for name in ("prompt", "tuned")] == ["Long.", None]
    assert recipe().system_of("tuned") is None


def test_a_system_prompt_of_its_own_is_replaced_only_when_asked() -> None:
    assert seen_by_tuned([OWN], None) == [OWN]
    for asked in ("", "Short."):
        (seen,) = seen_by_tuned([OWN], asked)
        assert seen.messages == BARE
        assert (seen.id, seen.answer, seen.where) == (OWN.id, OWN.answer, OWN.where)
    bare = Example("b", BARE, "f", 1)
    assert without_system(bare) is bare


def test_tuned_is_trained_chosen_and_asked_with_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    checked: list[str] = []
    from luthier import candidates
    from luthier.methods import SFT

    items, ask = SFT.items, candidates.ask

    def seen_items(self: SFT, examples: Any, chat: Any, system: str | None) -> Any:
        made = items(self, examples, chat, system)
        trained.extend(chat.tokenizer.decode(item.sequences[0].ids) for item in made)
        return made

    def seen_ask(model: Any, chat: Any, conversations: Any, **options: Any) -> Any:
        checked.extend(chat.render(messages, generation=True) for messages in conversations.values())
        return ask(model, chat, conversations, **options)

    monkeypatch.setattr(SFT, "items", seen_items)
    monkeypatch.setattr(candidates, "ask", seen_ask)
    run = open_run(home, tmp_path / "run", tuned_system="Sort.")
    run.train()
    assert len(trained) > 30
    assert checked  # the validation answers that choose an epoch
    for text in (*trained, *checked):
        assert "Sort." in text
        assert "Say good or bad." not in text
    scores = run.evaluate()["candidates"]
    assert all("Sort." in text and "Say good or bad." not in text for text in prompts(run, "tuned"))
    assert all("Say good or bad." in text for text in prompts(run, "prompt"))
    saved = scores["prompt"]["prompt_tokens"] - scores["tuned"]["prompt_tokens"]
    count = [len(run.chat.tokenizer(text).input_ids) for text in ("Say good or bad.", "Sort.")]
    assert saved == pytest.approx(count[0] - count[1], abs=1)


def test_what_depends_on_it(home: Path, tmp_path: Path) -> None:
    run = open_run(home, tmp_path / "run", tuned_system="")
    run.evaluate()
    assert not any("Say good or bad." in text for text in prompts(run, "tuned"))
    before = {name: run.record.stage_memo(name) for name in ("train", "answer-prompt", "answer-tuned")}

    def again(**changes: Any) -> set[str]:
        other = open_run(home, run.record.path, **changes)
        other.evaluate()
        return {name for name, memo in before.items() if other.record.stage_memo(name) != memo}

    assert again(tuned_system="", system="Judge.") == {"answer-prompt"}
    assert again(tuned_system="Sort.") >= {"train", "answer-tuned"}


# --- what a request costs ---------------------------------------------------------------------------

ROWS = [
    {"prompt_tokens": 100, "answer_tokens": 10, "seconds": 1.0},
    {"prompt_tokens": 300, "answer_tokens": 30, "seconds": 3.0},
]


def test_the_cost_of_a_request_by_hand() -> None:
    prices = Prices(prompt=2.0, answer=10.0, hour=1.8, currency="EUR")
    # 200 tokens at 2 a million, 20 at 10 a million, 2 seconds of an hour at 1.80
    assert request_cost("prompt", ROWS, prices) == {
        "prompt_tokens": 200.0,
        "answer_tokens": 20.0,
        "seconds": 2.0,
        "money": pytest.approx(0.0004 + 0.0002 + 0.001),
        "currency": "EUR",
    }


def test_a_tuned_model_may_have_prices_of_its_own() -> None:
    prices = Prices(prompt=2.0, answer=10.0, tuned_prompt=4.0, tuned_answer=0.0)
    assert request_cost("prompt", ROWS, prices)["money"] == pytest.approx(0.0006)
    assert request_cost("tuned", ROWS, prices)["money"] == pytest.approx(0.0008)
    assert Prices(prompt=2.0, answer=10.0).of_tokens("tuned") == (2.0, 10.0)


def test_without_prices_there_is_no_money_and_without_tokens_only_time() -> None:
    assert request_cost("prompt", ROWS, None)["money"] is None
    assert request_cost("prompt", ROWS, None)["prompt_tokens"] == 200.0
    rows = [{"prompt_tokens": None, "answer_tokens": None, "seconds": 36.0}]
    free = request_cost("scratch", rows, Prices(prompt=5.0, answer=5.0))
    assert (free["money"], free["prompt_tokens"]) == (0.0, None)
    assert request_cost("scratch", rows, Prices(hour=1.0))["money"] == pytest.approx(0.01)
    assert request_cost("prompt", [], Prices(prompt=1.0))["money"] is None


def test_prices_reach_the_scores(home: Path, tmp_path: Path) -> None:
    run = open_run(
        home, tmp_path / "run", candidates=["prompt", "scratch"], prices={"prompt": 1, "answer": 2}
    )
    row = run.evaluate()["candidates"]["prompt"]
    assert row["cost"]["money"] == pytest.approx((row["prompt_tokens"] + 2 * row["answer_tokens"]) / 1e6)
    assert row["cost"]["currency"] == "USD"


def test_prices_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match=r"prices\.prompt: .*greater than or equal to 0"):
        recipe(prices={"prompt": -1})
    with pytest.raises(RecipeError, match=r"unknown key 'prices\.input'"):
        recipe(prices={"input": 1})
