"""Models: identity, errors, and adapters that come back as they were saved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_models import relative_error, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from luthier.errors import ModelError
from luthier.forest import logprobs
from luthier.generate import generate
from luthier.models import (
    LoadedModel,
    attach_adapter,
    export_merged,
    load_adapter,
    load_model,
    model_identity,
    save_adapter,
)
from luthier.recipe import Adapter

ROWS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [11, 12, 13]]


@pytest.fixture
def folder(loaded: LoadedModel, tmp_path: Path) -> Path:
    """The tiny model as `save_pretrained` writes it."""
    loaded.model.save_pretrained(tmp_path / "base")
    loaded.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def trained(folder: Path, tmp_path: Path) -> Iterator[tuple[PeftModel, Path]]:
    """An adapter that has learnt something, and the folder it is saved in."""
    loaded = load_model(str(folder), device="cpu")
    model = attach_adapter(loaded, Adapter(rank=4, alpha=8), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    save_adapter(model, loaded.tokenizer, tmp_path / "adapter", base_name="acme/base")
    yield model.eval(), tmp_path / "adapter"
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle")]


def values(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat(logprobs(model, ROWS))  # type: ignore[arg-type]


def test_a_folder_is_loaded_frozen_and_ready(folder: Path, loaded: LoadedModel) -> None:
    again = load_model(str(folder), device="cpu")
    assert not again.model.training
    assert not any(p.requires_grad for p in again.model.parameters())
    assert again.model.dtype == torch.float32
    assert again.device.type == "cpu"
    assert relative_error(values(again.model), values(loaded.model)) < 1e-5
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template
    assert again.stop_ids == {2}
    assert again.identity == model_identity(str(folder))


def test_stop_ids(loaded: LoadedModel) -> None:
    model = tiny("llama", eos_token_id=[2, 7])
    assert replace(loaded, model=model).stop_ids == {2, 7}
    model.generation_config.eos_token_id = None
    assert replace(loaded, model=model).stop_ids == frozenset()


def test_identity_changes_with_any_file(folder: Path) -> None:
    before = model_identity(str(folder))
    assert model_identity(str(folder)) == before
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        content = (folder / name).read_bytes()
        changed = bytearray(content)
        changed[-1] ^= 1
        (folder / name).write_bytes(changed)
        assert model_identity(str(folder)) != before, name
        (folder / name).write_bytes(content)
    assert model_identity(str(folder)) == before
    (folder / ".cache").write_text("hidden files do not count")
    assert model_identity(str(folder)) == before
    shutil.copytree(folder, folder.parent / "moved")
    assert model_identity(str(folder.parent / "moved")) == before


def test_a_large_file_counts_by_both_ends(tmp_path: Path) -> None:
    def identity(head: bytes, tail: bytes) -> str:
        (tmp_path / "model.safetensors").write_bytes(head + bytes(3 << 20) + tail)
        return model_identity(str(tmp_path))

    assert len({identity(b"a", b"a"), identity(b"b", b"a"), identity(b"a", b"b"), identity(b"a", b"aa")}) == 4


def test_the_home_folder_may_be_abbreviated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert load_model("~/base", device="cpu").identity == model_identity(str(folder))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("not a model")
    with pytest.raises(ModelError, match=r"without config\.json is not a Transformers model") as caught:
        load_model(str(tmp_path))
    assert caught.value.where == str(tmp_path)
    with pytest.raises(ModelError, match="no such model folder"):
        load_model(str(tmp_path / "missing"))
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(tmp_path))


def test_a_model_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))


def test_a_damaged_weight_file(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))


def test_loading_leaves_the_libraries_verbosity_alone(folder: Path) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load_model(str(folder), device="cpu")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def test_a_fresh_adapter_starts_at_the_base_model(folder: Path) -> None:
    base = values(load_model(str(folder), device="cpu").model)
    model = attach_adapter(load_model(str(folder), device="cpu"), Adapter(rank=4), seed=1)
    assert torch.equal(values(model), base)
    adapted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert adapted
    assert all("lora_" in name and "lm_head" not in name for name in adapted)
    assert {name.split(".")[-4] for name in adapted} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    again = attach_adapter(load_model(str(folder), device="cpu"), Adapter(rank=4), seed=1)
    other = attach_adapter(load_model(str(folder), device="cpu"), Adapter(rank=4), seed=2)
    first, same, different = (dict(m.named_parameters()) for m in (model, again, other))
    assert all(torch.equal(first[name], same[name]) for name in adapted)
    assert not all(torch.equal(first[name], different[name]) for name in adapted)


def test_adapters_are_drawn_apart_from_the_global_generator(folder: Path) -> None:
    loaded = load_model(str(folder), device="cpu")
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    attach_adapter(loaded, Adapter(rank=4), seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_gpt2_gets_an_adapter_without_a_warning(loaded: LoadedModel) -> None:
    model = attach_adapter(replace(loaded, model=tiny("gpt2")), Adapter(rank=2), seed=0)
    assert any("c_attn.lora_A" in name for name, p in model.named_parameters() if p.requires_grad)


def test_an_adapter_comes_back_as_it_was_saved(folder: Path, trained: tuple[PeftModel, Path]) -> None:
    model, adapter = trained
    back = load_adapter(load_model(str(folder), device="cpu"), adapter)
    assert torch.equal(values(back), values(model))
    assert not torch.equal(values(model), values(load_model(str(folder), device="cpu").model))
    assert not any(p.requires_grad for p in back.parameters())
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(adapter)).eval()
    assert relative_error(values(plain), values(model)) < 1e-5


def test_what_a_saved_adapter_holds(trained: tuple[PeftModel, Path]) -> None:
    _, adapter = trained
    assert sorted(p.name for p in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert '"base_model_name_or_path": "acme/base"' in (adapter / "adapter_config.json").read_text()
    assert not list(adapter.parent.glob(".*"))


def test_saving_again_replaces(trained: tuple[PeftModel, Path], folder: Path) -> None:
    model, adapter = trained
    (adapter / "stale.txt").write_text("from before")
    save_adapter(model, AutoTokenizer.from_pretrained(folder), adapter, base_name="acme/base")
    assert not (adapter / "stale.txt").exists()


def test_adapters_that_do_not_fit(
    trained: tuple[PeftModel, Path], loaded: LoadedModel, tmp_path: Path
) -> None:
    _, adapter = trained
    vocabulary = len(loaded.tokenizer)
    for kind, sizes, message in [
        ("gpt2", {}, "does not fit the model"),
        ("llama", {"hidden_size": 64}, "does not fit the model"),
        ("llama", {"num_hidden_layers": 1}, r"14 tensors without a counterpart"),
    ]:
        model = tiny(kind, vocab_size=vocabulary, **sizes)
        with pytest.raises(ModelError, match=message):
            load_adapter(replace(loaded, model=model), adapter)
    with pytest.raises(ModelError, match="no adapter in this folder"):
        load_adapter(loaded, tmp_path)


def test_a_merged_export_answers_the_same(
    folder: Path, trained: tuple[PeftModel, Path], tmp_path: Path
) -> None:
    model, adapter = trained
    into = tmp_path / "exports" / "merged"
    export_merged(load_model(str(folder), device="cpu"), adapter, into)
    merged = load_model(str(into), device="cpu")
    assert torch.allclose(values(merged.model), values(model), atol=1e-4)
    ours, theirs = (
        [r.ids for r in generate(m, ROWS, max_new_tokens=8, stop_ids=frozenset({2}))]
        for m in (model, merged.model)
    )
    assert ours == theirs
    base = generate(
        load_model(str(folder), device="cpu").model, ROWS, max_new_tokens=8, stop_ids=frozenset({2})
    )
    assert [r.ids for r in base] != ours
    original = AutoTokenizer.from_pretrained(folder)
    assert merged.tokenizer.chat_template == original.chat_template
    assert merged.tokenizer.encode("the answer is 42") == original.encode("the answer is 42")
    names = {p.name for p in into.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not any("adapter" in name for name in names)


def test_an_export_keeps_the_dtype_of_the_base(
    folder: Path, trained: tuple[PeftModel, Path], tmp_path: Path
) -> None:
    loaded = load_model(str(folder), device="cpu")
    loaded.model.to(torch.bfloat16)
    export_merged(loaded, trained[1], tmp_path / "merged")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").dtype == torch.bfloat16
