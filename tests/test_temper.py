"""Tempering: the line between base and tuned, and which point of it is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_tokenizers import byte_level
from peft import PeftModel
from tiny_models import plain_logprobs, tiny

from luthier.chat import TrainingSequence
from luthier.errors import ModelError, RecipeError, TrainingError
from luthier.forest import logprobs
from luthier.methods import Item
from luthier.models import LoadedModel, attach_adapter
from luthier.models.temper import temper, tempered
from luthier.pipeline.tempering import choose, temper_adapter, weigh
from luthier.progress import Silent
from luthier.recipe import Adapter, parse_recipe

SEQUENCES = [[1, 2, 3, 4, 5], [1, 2, 9, 8]]


def adapted(kind: str = "lora") -> Any:
    """A tiny model whose update is far from nothing."""
    model = attach_adapter(LoadedModel(tiny("llama"), None, "tiny"), Adapter(kind=kind, rank=4), seed=0)  # type: ignore[arg-type]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def values(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(logprobs(model, SEQUENCES))


def items(*sequences: list[int]) -> list[Item]:
    return [
        Item(f"i{n}", (TrainingSequence(tuple(ids), (0.0,) + (1.0,) * (len(ids) - 1)),))
        for n, ids in enumerate(sequences)
    ]


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_the_ends_of_the_line_are_base_and_tuned(kind: str) -> None:
    model = adapted(kind)
    tuned = values(model)
    with model.disable_adapter():
        base = values(model)
    assert (tuned - base).abs().max() > 0.1
    with tempered(model, 0.0):
        torch.testing.assert_close(values(model), base, rtol=0, atol=1e-6)
    with tempered(model, 1.0):
        assert torch.equal(values(model), tuned)
    assert torch.equal(values(model), tuned)


def test_an_error_on_the_way_leaves_the_update_as_it_was() -> None:
    model = adapted()
    tuned = values(model)
    with pytest.raises(ValueError, match="away"), tempered(model, 0.5):
        raise ValueError("away")
    assert torch.equal(values(model), tuned)


def test_what_is_saved_is_what_was_tried(tmp_path: Path) -> None:
    model = adapted()
    with tempered(model, 0.25):
        tried = values(model)
    temper(model, 0.25)
    torch.testing.assert_close(values(model), tried, rtol=0, atol=1e-6)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny("llama"), tmp_path).eval()
    torch.testing.assert_close(values(loaded), tried, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["dora", "prefix", "prompt", "full"])
def test_other_updates_are_refused(kind: str) -> None:
    tokenizer = byte_level("{{ messages }}", (), eos="<end>")
    loaded = LoadedModel(tiny("llama", vocab_size=len(tokenizer)), tokenizer, "tiny")
    model = attach_adapter(loaded, Adapter(kind=kind, rank=4), seed=0)
    with pytest.raises(ModelError, match="low-rank"), tempered(model, 0.5):
        pass
    with pytest.raises(RecipeError, match=r"train\.temper"):
        parse_recipe(
            {"model": "m", "data": "d.jsonl", "adapter": {"kind": kind}, "train": {"temper": [0.5, 1]}},
            base=Path(),
        )


def test_the_mildest_within_one_standard_error_by_hand() -> None:
    """Against the lowest (scale 1): 0.5 is 0.1 above on each of 4 examples but one, 0.25 is 1 above."""
    losses = np.array([[2.0, 2.0, 2.0, 2.0], [1.3, 1.3, 0.6, 1.3], [1.0, 1.0, 1.0, 1.0]])
    rows = weigh([0.25, 0.5, 1.0], losses, [0.0, 0.1, 0.2])
    # gaps of 0.5: 0.3, 0.3, -0.4, 0.3: mean 0.125, standard deviation 0.35, standard error 0.175
    assert rows[1]["above_lowest"] == pytest.approx(0.125)
    assert rows[1]["standard_error"] == pytest.approx(0.175)
    assert (rows[0]["above_lowest"], rows[0]["standard_error"]) == (1.0, 0.0)
    assert choose(rows) == 0.5
    assert choose(weigh([0.25, 1.0], losses[[0, 2]], [None, None])) == 1.0


def favourite(model: Any, start: int) -> list[int]:
    """The sequence that a model finds likeliest, token by token."""
    ids = [start]
    with torch.no_grad():
        for _ in range(6):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids


@pytest.mark.parametrize(("liked_by_base", "chosen"), [(True, 0.05), (False, 1.0)])
def test_a_harmful_update_is_tempered_and_a_useful_one_is_not(liked_by_base: bool, chosen: float) -> None:
    """Validation examples that the base, or the tuned model, finds likeliest."""
    model = adapted()
    with tempered(model, 0.0 if liked_by_base else 1.0):
        held = items(*(favourite(model, start) for start in range(3, 11)))
    found = temper_adapter(model, held, items([4, 4, 4]), [1.0, 0.05, 0.5], Silent())
    assert [row["scale"] for row in found["rows"]] == [0.05, 0.5, 1.0]
    assert found["chosen"] == chosen
    assert abs(found["rows"][0]["drift"]) < abs(found["rows"][2]["drift"])
    assert found["rows"][2]["validation_loss"] == pytest.approx(loss_of(adapted(), held), abs=1e-5)


def loss_of(model: Any, held: list[Item]) -> float:
    """Mean over examples of nats per token, without the engine."""
    with torch.no_grad():
        return float(np.mean([-plain_logprobs(model, item.sequences[0].ids).mean() for item in held]))


def test_without_validation_there_is_nothing_to_choose_on() -> None:
    with pytest.raises(TrainingError, match=r"split\.validation"):
        temper_adapter(adapted(), [], [], [0.5, 1.0], Silent())
