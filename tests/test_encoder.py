"""Encoders as classifiers: in the same loop, with the same files, and padding that changes nothing."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_tokenizers import byte_level
from exactness import gradient_error
from peft import PeftModel
from tiny_encoders import KINDS, write_encoder
from tiny_models import relative_error, tiny
from tiny_training import Crash, crash_at, outcome, run, same, settings, trainable
from transformers import AutoModelForSequenceClassification

from luthier.errors import DataError, ModelError
from luthier.examples.example import Example, Message
from luthier.methods import Classify, Item, Reward
from luthier.methods.method import read_at_end
from luthier.models import LoadedModel, Model, attach_adapter, load_adapter, save_adapter
from luthier.models.encoder import encoder_outputs, is_encoder, load_encoder, read_text
from luthier.models.head_files import saved_labels
from luthier.models.heads import attach_head, labels_of
from luthier.pipeline.encoders import encoder_items
from luthier.recipe import Adapter
from luthier.train import loop
from luthier.train.estimate import estimate_training
from luthier.train.outputs import outputs_of, score_sequences
from luthier.train.sharing import sharing_of

NAMES = ("high", "low", "middle")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_encoder(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def adapted(loaded: LoadedModel, kind: str) -> Model:
    model = attach_adapter(loaded, Adapter(kind=kind, rank=4), seed=7)  # type: ignore[arg-type]
    attach_head(model, Classify(NAMES), seed=7)
    return model


def requests(count: int, *, seed: int = 0) -> list[Item]:
    """Texts of random tokens; the label says which of twelve tokens is among them."""
    dice = random.Random(seed)
    items = []
    for line in range(1, count + 1):
        place, label = dice.choice(
            [(range(60, 64), "high"), (range(20, 24), "low"), (range(40, 44), "middle")]
        )
        before = [1, *(dice.randrange(80, 96) for _ in range(dice.randrange(1, 5)))]
        items.append(Item(f"d:{line}", (read_at_end([*before, dice.choice(place), 2]),), label=label))
    return items


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, folders: dict[str, Path]) -> None:
    """Values and gradients are those of a row for each text."""
    model = load_encoder(str(folders[kind]), NAMES, device="cpu").model.requires_grad_(True)
    rows = [list(item.sequences[0].ids) for item in requests(6)]
    assert len({len(row) for row in rows}) > 2
    found = torch.stack([own for (own,) in outputs_of(model, Classify(NAMES), requests(6))])
    alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])
    assert found.shape == (6, 3)
    assert relative_error(found, alone) < 1e-5
    assert relative_error(score_sequences(model, rows, max_tokens=9), alone) < 1e-5
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    slopes = []
    for values in (found, alone):
        model.zero_grad()
        (values * weights).sum().backward()
        slopes.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradient_error(*slopes)[0] < 1e-4


def test_its_head_is_drawn_by_the_seed_and_named_by_the_labels(folders: dict[str, Path]) -> None:
    state = torch.get_rng_state()
    loaded = load_encoder(str(folders["bert"]), NAMES, device="cpu", seed=1)
    again = load_encoder(str(folders["bert"]), NAMES, device="cpu", seed=1)
    other = load_encoder(str(folders["bert"]), NAMES, device="cpu", seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert labels_of(loaded.model) == NAMES
    heads = [m.model.get_parameter("classifier.weight") for m in (loaded, again, other)]
    assert heads[0].shape == (3, 32)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not sharing_of(loaded.model)(requests(1)[0])


def test_what_is_no_encoder(folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = byte_level(None)
    tiny("llama", vocab_size=len(tokenizer)).save_pretrained(str(tmp_path / "llama"))
    tokenizer.save_pretrained(str(tmp_path / "llama"))
    assert not is_encoder(tiny("llama"))
    with pytest.raises(ModelError, match="LlamaForSequenceClassification is a decoder"):
        load_encoder(str(tmp_path / "llama"), NAMES, device="cpu")
    with pytest.raises(ModelError, match="no such model folder"):
        load_encoder(str(tmp_path / "missing"), NAMES)
    loaded = load_encoder(str(folders["bert"]), NAMES, device="cpu")
    with pytest.raises(ModelError, match="loaded with other labels"):
        attach_head(loaded.model, Classify(("a", "b", "c")), seed=0)
    with pytest.raises(ModelError, match="loaded with other labels"):
        attach_head(loaded.model, Reward(), seed=0)


def test_a_text_never_spells_control_tokens(folders: dict[str, Path]) -> None:
    loaded = load_encoder(str(folders["bert"]), NAMES, device="cpu")
    control = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert control in loaded.tokenizer("over <|im_end|>")["input_ids"]
    ids = read_text(loaded.tokenizer, "over <|im_end|>")
    assert control not in ids
    assert loaded.tokenizer.decode(ids) == "over <|im_end|>"
    asked = (Message("user", "is it?"), Message("assistant", "low"))
    (item,) = encoder_items([Example("e", asked, "d", 1)], loaded.tokenizer, "Be brief.")
    assert list(item.sequences[0].ids) == read_text(loaded.tokenizer, "Be brief.\nis it?")
    assert item.label == "low"
    own = (Message("system", "Be kind."), *asked)
    (item,) = encoder_items([Example("e", own, "d", 1)], loaded.tokenizer, "Be brief.")
    assert list(item.sequences[0].ids) == read_text(loaded.tokenizer, "Be kind.\nis it?")
    with pytest.raises(DataError, match="the label is empty"):
        blank = Example("e", (asked[0], Message("assistant", "")), "d", 1)
        encoder_items([blank], loaded.tokenizer, None)


def accuracy(model: Model, items: list[Item]) -> float:
    found = score_sequences(model, [item.sequences[0].ids for item in items]).argmax(1).tolist()
    return sum(NAMES[i] == item.label for i, item in zip(found, items, strict=True)) / len(items)


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_it_learns_a_rule_in_the_same_loop(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = adapted(load_encoder(str(folders["bert"]), NAMES, device="cpu"), kind)
    assert any("classifier" in name for name in trainable(model))
    held, items = requests(40, seed=9), requests(120)
    method, before = Classify().settle(items), accuracy(model, held)
    plan = settings(epochs=10, batch_tokens=100, learning_rate=1e-2 if kind == "lora" else 3e-3)
    told = estimate_training(model, method, items, held[:10], plan, seed=1)
    _, summary = run(
        tmp_path / "run", model=model, method=method, items=items, validation=held[:10], settings=plan
    )
    assert before < 0.7 and accuracy(model, held) >= 0.95
    assert (told.steps, told.tokens) == (summary["steps"], summary["tokens"])


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_resumed_is_uninterrupted(
    kind: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def go(folder: Path, **changes: Any) -> Any:
        model = adapted(load_encoder(str(folders["bert"]), NAMES, device="cpu"), kind)
        given: dict[str, Any] = {"method": Classify(NAMES), "items": requests(14), "validation": requests(4)}
        return outcome(
            folder, run(folder, model=model, settings=settings(batch_tokens=30), **given, **changes)
        )

    whole = go(tmp_path / "whole")
    with pytest.raises(Crash):
        go(tmp_path / "run", show=crash_at(4))
    assert same(go(tmp_path / "run"), whole)


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_others_load_what_was_saved(
    kind: str, adapter: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    loaded = load_encoder(str(folders[kind]), NAMES, device="cpu", seed=5)
    model = adapted(loaded, adapter)
    with torch.no_grad():
        for parameter in trainable_parameters(model):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    rows = [list(item.sequences[0].ids) for item in requests(4)]
    ours = encoder_outputs(model, rows).detach()
    save_adapter(model, loaded.tokenizer, tmp_path / "adapter", base_name=str(folders[kind]))
    assert saved_labels(tmp_path / "adapter") == NAMES
    source = tmp_path / "adapter" if adapter == "full" else folders[kind]
    theirs = AutoModelForSequenceClassification.from_pretrained(source, num_labels=3)
    if adapter == "lora":
        theirs = PeftModel.from_pretrained(theirs, str(tmp_path / "adapter"))
    assert relative_error(encoder_outputs(theirs.eval(), rows), ours) < 1e-5
    fresh = load_encoder(str(folders[kind]), saved_labels(tmp_path / "adapter"), device="cpu", seed=6)
    back = load_adapter(fresh, tmp_path / "adapter")
    assert relative_error(encoder_outputs(back, rows), ours) < 1e-6
    assert labels_of(back) == NAMES


def trainable_parameters(model: Model) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
