"""Every kind of adapter: what it trains, how it is saved, and what plain PEFT and Transformers load."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from test_soft_prompts import gradients, peft_logprobs
from tiny_models import SHARING, relative_error, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier.errors import ModelError, RecipeError
from luthier.forest import logprobs
from luthier.models import (
    LoadedModel,
    Model,
    attach_adapter,
    export_merged,
    is_whole_model,
    load_adapter,
    load_model,
    save_adapter,
)
from luthier.models.layers import block_list, chosen_layers
from luthier.recipe import Adapter, parse_recipe
from luthier.train.schedule import peak_rate

ROWS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [11, 12, 13]]
KINDS = ["lora", "rslora", "dora", "prefix", "prompt", "full"]
LOW_RANK = KINDS[:3]
VIRTUAL = ["prefix", "prompt"]


def spoil(model: Model, *, std: float = 0.05) -> None:
    """As after some training: every trained number is another one."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * std)


def values(model: Any, rows: list[list[int]] = ROWS) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat(logprobs(model, rows))


def plain_values(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([peft_logprobs(model, row) for row in ROWS])


@pytest.fixture
def folder(loaded: LoadedModel, tmp_path: Path) -> Path:
    loaded.model.save_pretrained(tmp_path / "base")
    loaded.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapter_of(kind: str, **options: Any) -> Adapter:
    return Adapter(kind=kind, rank=4, alpha=8, virtual_tokens=5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_kind_loads_in_plain_peft_or_transformers(kind: str, folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder), device="cpu")
    base = values(loaded.model)
    model = attach_adapter(loaded, adapter_of(kind), seed=1)
    spoil(model)
    saved = tmp_path / "adapter"
    save_adapter(model, loaded.tokenizer, saved, base_name="acme/base")
    back = load_adapter(load_model(str(folder), device="cpu"), saved)
    assert torch.equal(values(back), values(model))
    assert relative_error(values(model), base) > 1e-3
    assert not any(p.requires_grad for p in back.parameters())
    assert not back.training
    plain_base = AutoModelForCausalLM.from_pretrained(saved if kind == "full" else folder)
    plain = plain_base if kind == "full" else PeftModel.from_pretrained(plain_base, str(saved))
    assert relative_error(values(model), plain_values(plain.eval())) < 1e-5
    assert AutoTokenizer.from_pretrained(saved).chat_template == loaded.tokenizer.chat_template
    names = {p.name for p in saved.iterdir()}
    assert is_whole_model(saved) == (kind == "full") == ("config.json" in names)
    assert ("adapter_config.json" in names) == (kind != "full")
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pth", ".pkl"))]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained(kind: str, folder: Path) -> None:
    loaded = load_model(str(folder), device="cpu")
    sizes = {n: p.numel() for n, p in loaded.model.named_parameters()}
    model = attach_adapter(loaded, adapter_of(kind), seed=1)
    trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    expected = {
        "prefix": 5 * 2 * 2 * 2 * 8,  # tokens, layers, keys and values, heads, head width
        "prompt": 5 * 32,
        "full": sum(sizes.values()),
    }
    if kind in expected:
        assert sum(trained.values()) == expected[kind]
    else:
        outputs = sum(m.out_features for n, m in loaded.model.named_modules() if n.endswith("base_layer"))
        a_and_b = {n: c for n, c in trained.items() if "lora_A" in n or "lora_B" in n}
        assert len(a_and_b) == 2 * 2 * 7
        assert sum(trained.values()) - sum(a_and_b.values()) == (outputs if kind == "dora" else 0)


@pytest.mark.parametrize("kind", LOW_RANK)
def test_low_rank_kinds_start_at_the_base(kind: str, folder: Path) -> None:
    loaded = load_model(str(folder), device="cpu")
    base = values(loaded.model)
    assert relative_error(values(attach_adapter(loaded, adapter_of(kind), seed=1)), base) < 1e-5


def test_scales(folder: Path) -> None:
    """alpha / rank, and alpha / sqrt(rank) for rslora: 8 / 4 and 8 / 2."""
    for kind, expected in (("lora", 2.0), ("dora", 2.0), ("rslora", 4.0)):
        model = attach_adapter(load_model(str(folder), device="cpu"), adapter_of(kind), seed=1)
        scales = {m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")}
        assert scales == {expected}


@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_start_as_a_text(kind: str, folder: Path) -> None:
    """They compute what the base computes after the same tokens: n words before the sequence."""
    loaded = load_model(str(folder), device="cpu")
    words = (loaded.tokenizer("Read the request with care", add_special_tokens=False).input_ids)[:5]
    base = torch.cat([v[len(words) :] for v in logprobs(loaded.model, [[*words, *row] for row in ROWS])])
    model = attach_adapter(loaded, adapter_of(kind), seed=1)
    assert relative_error(values(model), base) < 1e-5


@pytest.mark.parametrize("kind", VIRTUAL)
def test_a_long_prefix_repeats_the_text(kind: str, folder: Path) -> None:
    model = attach_adapter(
        load_model(str(folder), device="cpu"),
        Adapter(kind=kind, virtual_tokens=120),
        seed=0,  # type: ignore[arg-type]
    )
    assert torch.isfinite(values(model)).all()


@pytest.mark.parametrize("kind", [*LOW_RANK, "full"])
@pytest.mark.parametrize(
    ("layers", "expected"), [("last 1", {1}), ("0-1", {0, 1}), ([0], {0}), ((1, 0), {0, 1})]
)
def test_freezing_by_layer(kind: str, layers: Any, expected: set[int], folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder), device="cpu")
    model = attach_adapter(loaded, adapter_of(kind, layers=layers), seed=1)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {int(n.split("layers.")[1].split(".")[0]) for n in trained} == expected
    spoil(model)
    before = values(model)
    save_adapter(model, loaded.tokenizer, tmp_path / "adapter", base_name="acme/base")
    assert torch.equal(
        values(load_adapter(load_model(str(folder), device="cpu"), tmp_path / "adapter")), before
    )


@pytest.mark.parametrize("kind", sorted(SHARING))
def test_layers_are_found_by_architecture(kind: str, loaded: LoadedModel) -> None:
    model = tiny(kind).requires_grad_(False)
    assert len(block_list(model)[1]) == 2
    assert chosen_layers(model, "last 1") == [1]
    adapted = attach_adapter(replace(loaded, model=model), adapter_of("lora", layers="last 1"), seed=0)
    name = block_list(model)[0].rpartition(".")[2]
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    assert all(f".{name}.1." in n for n in trained)


@pytest.mark.parametrize("layers", ["last 3", "1-2", "1-0", [2]])
def test_layers_that_are_not_there(layers: Any, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"in a model of 2.*\n?.*numbered 0 to 1"):
        attach_adapter(load_model(str(folder), device="cpu"), adapter_of("lora", layers=layers), seed=0)


@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_of_another_model(
    kind: str, folder: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    mine = load_model(str(folder), device="cpu")
    save_adapter(
        attach_adapter(mine, adapter_of(kind), seed=0), mine.tokenizer, tmp_path / "adapter", base_name="b"
    )
    sizes: list[dict[str, Any]] = [{"hidden_size": 64}]
    sizes += [{"num_hidden_layers": 1}, {"num_hidden_layers": 3}] if kind == "prefix" else []
    for size in sizes:
        other = replace(loaded, model=tiny("llama", vocab_size=len(loaded.tokenizer), **size))
        with pytest.raises(ModelError, match="does not fit the model"):
            load_adapter(other, tmp_path / "adapter")


def test_an_architecture_without_keys_and_values_takes_no_prefix(loaded: LoadedModel) -> None:
    model = tiny("mamba", vocab_size=len(loaded.tokenizer))
    with pytest.raises(ModelError, match="MambaForCausalLM takes no prefix"):
        attach_adapter(replace(loaded, model=model), adapter_of("prefix"), seed=0)


@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_cannot_be_merged(kind: str, folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder), device="cpu")
    save_adapter(
        attach_adapter(loaded, adapter_of(kind), seed=0),
        loaded.tokenizer,
        tmp_path / "adapter",
        base_name="b",
    )
    with pytest.raises(ModelError, match="cannot be merged"):
        export_merged(load_model(str(folder), device="cpu"), tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("kind", [*LOW_RANK, "full"])
def test_merged_exports_answer_the_same(kind: str, folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder), device="cpu")
    model = attach_adapter(loaded, adapter_of(kind), seed=1)
    spoil(model)
    before = values(model)
    save_adapter(model, loaded.tokenizer, tmp_path / "adapter", base_name="acme/base")
    export_merged(load_model(str(folder), device="cpu"), tmp_path / "adapter", tmp_path / "merged")
    merged = load_model(str(tmp_path / "merged"), device="cpu")
    assert relative_error(values(merged.model), before) < 1e-5
    assert merged.tokenizer.chat_template == loaded.tokenizer.chat_template


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mistral"])
def test_gradients_of_every_kind_are_those_of_plain_rows(
    kind: str, architecture: str, loaded: LoadedModel
) -> None:
    model = tiny(architecture, vocab_size=len(loaded.tokenizer)).requires_grad_(False)
    trained = attach_adapter(replace(loaded, model=model), adapter_of(kind), seed=1)
    spoil(trained)
    got = gradients(trained, logprobs(trained, ROWS))
    wanted = gradients(trained, [peft_logprobs(trained, row) for row in ROWS])
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 0
    assert all(float((got[n] - wanted[n]).abs().max()) <= 1e-5 * largest for n in wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_full_fine_tuning_trains_embeddings_and_head(tied: bool, loaded: LoadedModel) -> None:
    model = tiny("llama", vocab_size=len(loaded.tokenizer), tie_word_embeddings=tied).requires_grad_(False)
    trained = attach_adapter(replace(loaded, model=model), adapter_of("full"), seed=1)
    got = gradients(trained, logprobs(trained, ROWS))
    wanted = gradients(trained, [peft_logprobs(trained, row) for row in ROWS])
    assert ("lm_head.weight" in got) != tied
    for name in wanted:
        assert relative_error(got[name], wanted[name]) < 2e-5


# In the recipe -------------------------------------------------------------------------------------


def parsed(adapter: Any) -> Adapter:
    raw = {"model": "m", "data": "d.jsonl", "adapter": adapter}
    return parse_recipe(raw, base=Path(), where="r.yaml").adapter


def test_what_a_recipe_may_say() -> None:
    assert parsed({}) == Adapter()
    assert parsed({"layers": [3, 1]}).layers == (1, 3)
    assert parsed({"layers": "last 10"}).layers == "last 10"
    assert parsed(json.loads(Adapter(layers=(1, 2)).model_dump_json())).layers == (1, 2)
    assert {parsed({"kind": kind}).kind for kind in KINDS} == set(KINDS)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"kind": "full", "base": "int8"}, r"cannot be held in int8: use `base: exact`"),
        ({"kind": "prompt", "layers": "last 2"}, "a prompt acts on all layers: leave out `layers`"),
        ({"kind": "prefix", "layers": [1]}, "a prefix acts on all layers"),
        ({"layers": "first 3"}, "adapter.layers: expected all, `last 10`"),
        ({"layers": "last 0"}, "expected all"),
        ({"layers": 5}, "expected all"),
        ({"layers": []}, "expected all"),
        ({"layers": [1, 1]}, "expected all"),
        ({"layers": [-1]}, "expected all"),
        ({"layers": [True]}, "expected all"),
        ({"kind": "lorra"}, "did you mean 'lora'"),
        ({"base": "int3"}, "did you mean 'int"),
        ({"virtual_tokens": 0}, "virtual_tokens"),
    ],
)
def test_what_a_recipe_may_not_say(adapter: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parsed(adapter)


# The learning rate ---------------------------------------------------------------------------------


def test_the_rule_for_each_kind() -> None:
    lora = peak_rate("auto", hidden_size=2000, kind="lora")
    assert lora == pytest.approx(5e-4)
    assert peak_rate("auto", hidden_size=2000, kind="dora") == lora
    assert peak_rate("auto", hidden_size=2000, kind="full") == pytest.approx(lora / 10)
    assert peak_rate("auto", hidden_size=2000, kind="rslora", rank=16) == pytest.approx(lora / 4)
    assert peak_rate("auto", hidden_size=500, kind="full") == pytest.approx(5e-5 * 4**0.781)
    for kind in VIRTUAL:
        rates = {peak_rate("auto", hidden_size=size, kind=kind) for size in (64, 4096)}  # type: ignore[arg-type]
        assert len(rates) == 1
        assert 1e-3 <= rates.pop() <= 0.1
    for kind in KINDS:
        assert peak_rate(0.25, hidden_size=64, kind=kind) == 0.25  # type: ignore[arg-type]


def test_first_steps_of_rslora_are_those_of_lora(folder: Path) -> None:
    """At the rule's rates one step of Adam changes the weights by the same amount at any rank."""
    for rank in (4, 16):
        moved = {}
        for kind in ("lora", "rslora"):
            adapter = Adapter(kind=kind, rank=rank)  # type: ignore[arg-type]
            model = attach_adapter(load_model(str(folder), device="cpu"), adapter, seed=1)
            layer = model.get_base_model().model.layers[0].mlp.up_proj
            b = layer.lora_B["default"].weight
            rate = peak_rate("auto", hidden_size=32, kind=kind, rank=rank)  # type: ignore[arg-type]
            optimizer = torch.optim.AdamW([b], lr=rate, weight_decay=0.0)
            (-torch.cat(logprobs(model, ROWS)).sum()).backward()
            optimizer.step()
            moved[kind] = layer.get_delta_weight("default")
        assert relative_error(moved["rslora"], moved["lora"]) < 1e-3
    assert math.isfinite(rate)
