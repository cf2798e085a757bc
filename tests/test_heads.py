"""Heads: how they start, what they say, and that PEFT, Transformers and Luthier load what was saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from tiny_models import relative_error, tiny
from tiny_training import equal, make_items, trainable
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from luthier.chat import TrainingSequence
from luthier.errors import ModelError
from luthier.forest import logprobs, soft_targets
from luthier.methods import SFT, Classify, Item, Reward
from luthier.models import LoadedModel, Model, attach_adapter, load_adapter, load_model, save_adapter
from luthier.models.heads import (
    attach_head,
    detach_head,
    find_head,
    labels_of,
    pooled_token,
    read_head,
)
from luthier.recipe import Adapter
from luthier.train.outputs import outputs_of, score_sequences

LABELS = ("billing", "delivery", "other")
VALUE: Any = SimpleNamespace(head="tokens", labels=())
KINDS = ["lora", "rslora", "dora", "prefix", "full"]
# the last but one ends with the padding token of the tiny models, 0; the last is nothing else
ROWS = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10, 11], [12], [5, 6, 7, 0], [0, 0]]


def with_head(reader: Any, kind: str = "lora", architecture: str = "llama", *, seed: int = 7) -> Model:
    """A tiny model with what is trained attached, as after some training: nothing of it is zero."""
    loaded = LoadedModel(tiny(architecture).requires_grad_(False), None, "tiny")  # type: ignore[arg-type]
    return attached(loaded, reader, kind, seed=seed)


def attached(loaded: LoadedModel, reader: Any, kind: str, *, seed: int = 7) -> Model:
    model = attach_adapter(loaded, Adapter(kind=kind, rank=4, virtual_tokens=3), seed=seed)  # type: ignore[arg-type]
    attach_head(model, reader, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or name.startswith("value_head") or ".value_head" in name:
                parameter.normal_(std=0.1)
    return model.eval()


def plain_items(rows: list[list[int]] = ROWS) -> list[Item]:
    return [Item("here", (TrainingSequence(tuple(row), (0.0,) * len(row)),)) for row in rows]


def transformers_outputs(model: torch.nn.Module, rows: list[list[int]] = ROWS) -> torch.Tensor:
    """`[S, K]` of a sequence classifier, each row alone."""
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])


# how they start -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_head_is_one_more_trained_tensor(kind: str) -> None:
    before = attach_adapter(
        LoadedModel(tiny("llama").requires_grad_(False), None, "tiny"),  # type: ignore[arg-type]
        Adapter(kind=kind, rank=4),  # type: ignore[arg-type]
        seed=7,
    )
    names = set(trainable(before))
    for reader, shape, extra in ((Reward(), (1, 32), 1), (Classify(LABELS), (3, 32), 1), (VALUE, (1, 32), 2)):
        after = trainable(with_head(reader, kind))
        new = {name: value for name, value in after.items() if name not in names}
        assert len(new) == extra
        assert [tuple(v.shape) for name, v in new.items() if name.endswith("weight")] == [shape]
        assert all(value.dtype == torch.float32 for value in new.values())
        assert names < set(after)


def test_a_value_head_starts_at_zero_and_a_reward_near_it() -> None:
    model = tiny("llama", initializer_range=0.02)
    state = torch.get_rng_state()
    attach_head(model, VALUE, seed=1)
    attach_head(model, Reward(), seed=1)
    assert torch.equal(torch.get_rng_state(), state), "it draws from a stream of its own"
    value, score = find_head(model, "tokens"), find_head(model, "sequence")
    assert isinstance(value, torch.nn.Linear) and isinstance(score, torch.nn.Linear)
    assert not value.weight.any() and not value.bias.any()
    assert score.bias is None
    expected = torch.randn(1, 32, generator=torch.Generator().manual_seed(1)) * 0.02
    assert torch.equal(score.weight, expected)
    other = tiny("llama", initializer_range=0.02)
    attach_head(other, Reward(), seed=2)
    assert not torch.equal(other.score.weight, score.weight)


def test_labels_are_the_configurations() -> None:
    model = with_head(Classify(LABELS))
    assert labels_of(model) == LABELS
    assert model.config.num_labels == 3
    assert model.config.label2id == {"billing": 0, "delivery": 1, "other": 2}
    assert labels_of(with_head(Reward())) == ("reward",)


def test_what_cannot_be_attached() -> None:
    model = with_head(Reward())
    with pytest.raises(ModelError, match="has a score already"):
        attach_head(model, Reward(), seed=0)
    attach_head(model, SFT(), seed=0)  # reads none
    mamba = tiny("mamba")
    with pytest.raises(ModelError, match=r"no sequence classifier .* MambaForCausalLM"):
        attach_head(mamba, Reward(), seed=0)
    assert find_head(mamba, "sequence") is None
    attach_head(mamba, VALUE, seed=0)
    assert find_head(mamba, "tokens") is not None


def test_a_head_that_is_missing_is_named() -> None:
    model = with_head(Reward())
    with pytest.raises(ModelError, match="has no value_head"):
        outputs_of(model, VALUE, make_items(3))
    with pytest.raises(ModelError, match="has no score"):
        score_sequences(tiny("llama"), ROWS)
    detach_head(model, "sequence")
    assert find_head(model, "sequence") is None
    detach_head(model, "sequence")


# what they say ------------------------------------------------------------------------------------


def test_pooling_is_transformers() -> None:
    """The last token that is not padding, also where padding ends the answer; of padding alone the first."""
    model = tiny("llama")
    assert [pooled_token(model, row) for row in ROWS] == [3, 2, 5, 0, 2, 0]
    assert pooled_token(model, [0, 5, 0, 6, 0, 0]) == 3
    model.config.pad_token_id = None
    assert [pooled_token(model, row) for row in ROWS] == [3, 2, 5, 0, 3, 1]


@pytest.mark.parametrize("reader", [Reward(), Classify(LABELS)], ids=["reward", "classify"])
def test_a_sequence_head_says_what_transformers_classifier_says(reader: Any) -> None:
    """Values and gradients, of all weights; there one row each and one padded batch."""
    model = with_head(reader, "full")
    twin = AutoModelForSequenceClassification.from_config(model.config).eval()
    twin.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("lm_head")})
    found = torch.stack([own for (own,) in outputs_of(model, reader, plain_items())])
    assert found.dtype == torch.float32
    assert relative_error(found, transformers_outputs(twin)) < 1e-5
    width = max(map(len, ROWS))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ROWS])
    batch = twin(input_ids=padded, attention_mask=(padded != 0).long()).logits
    assert relative_error(found[:-1], batch[:-1]) < 1e-5
    weights = torch.randn(found[:-1].shape, generator=torch.Generator().manual_seed(0))
    (found[:-1] * weights).sum().backward()
    (batch[:-1] * weights).sum().backward()
    for name, parameter in twin.named_parameters():
        own = model.get_parameter(name).grad
        assert own is not None and parameter.grad is not None
        assert float((own - parameter.grad).norm()) <= 1e-4 * float(parameter.grad.norm()) + 1e-6, name


def test_a_tokens_head_says_values_beside_log_probabilities() -> None:
    model, items = with_head(VALUE), make_items(6)
    rows = [sequence for item in items for sequence in item.sequences]
    found = [own for item in outputs_of(model, VALUE, items) for own in item]
    expected = logprobs(model, [s.ids for s in rows], needed=[f for i in items for f in i.flags])
    base = model.get_base_model()  # type: ignore[operator]
    for own, logps, row in zip(found, expected, rows, strict=True):
        assert own.shape == (len(logps), 2) and own.dtype == torch.float32
        assert torch.equal(own[:, 0], logps)
        states = base.model(input_ids=torch.tensor([row.ids])).last_hidden_state[0]
        before = states[:-1][torch.tensor(row.weights[1:]) > 0]
        assert relative_error(own[:, 1], base.value_head(before)[:, 0]) < 1e-5
    flat = torch.cat(found)
    flat[:, 1].sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("value_head" in name for name in trained) and any("lora_A" in name for name in trained)


def test_a_teachers_distributions_reach_the_first_column() -> None:
    model, items = with_head(VALUE), make_items(3)
    teacher = tiny("llama", seed=3)
    soft = [
        replace(item, soft=tuple(soft_targets(teacher, [s.ids for s in item.sequences], item.flags)))
        for item in items
    ]
    plain, taught = outputs_of(model, VALUE, items), outputs_of(model, VALUE, soft)
    expected = outputs_of(model, SFT(), soft)
    assert torch.equal(taught[0][0][:, 0], expected[0][0])
    assert not torch.allclose(taught[0][0][:, 0], plain[0][0][:, 0])
    assert torch.equal(taught[0][0][:, 1], plain[0][0][:, 1])


def test_without_a_head_it_is_log_probabilities_item_by_item() -> None:
    model, items = with_head(Reward()), make_items(6)
    found = outputs_of(model, SFT(), items)
    assert [len(own) for own in found] == [len(item.sequences) for item in items]
    expected = logprobs(
        model,
        [s.ids for item in items for s in item.sequences],
        needed=[f for item in items for f in item.flags],
    )
    flat = [own for item in found for own in item]
    assert all(torch.equal(a, b) for a, b in zip(flat, expected, strict=True))


@pytest.mark.parametrize("max_tokens", [1, 6, 1000])
def test_scoring_gives_the_same_in_the_order_given(max_tokens: int) -> None:
    model, done = with_head(Classify(LABELS)), []
    expected = torch.stack([own for (own,) in outputs_of(model, Classify(LABELS), plain_items())])
    found = score_sequences(model, ROWS, max_tokens=max_tokens, advance=done.append)
    assert found.shape == (6, 3) and not found.requires_grad
    assert relative_error(found, expected) < 1e-5
    assert sum(done) == len(ROWS)


def test_a_bfloat16_base_has_a_float32_head() -> None:
    loaded = LoadedModel(tiny("llama").bfloat16().requires_grad_(False), None, "tiny")  # type: ignore[arg-type]
    model = attached(loaded, Reward(), "lora")
    head = find_head(model, "sequence")
    assert head is not None
    assert read_head(model, "sequence", torch.zeros(2, 32, dtype=torch.bfloat16)).dtype == torch.float32
    assert score_sequences(model, ROWS).dtype == torch.float32


# saving and loading -------------------------------------------------------------------------------


@pytest.fixture
def base_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    tiny("llama", vocab_size=len(tokenizer)).save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.mark.parametrize("reader", [Reward(), Classify(LABELS)], ids=["reward", "classify"])
@pytest.mark.parametrize("kind", KINDS)
def test_others_load_what_was_saved(kind: str, reader: Any, base_folder: Path, tmp_path: Path) -> None:
    """PEFT on Transformers' classifier, or that classifier itself, and Luthier: all give the same numbers."""
    loaded = load_model(str(base_folder), device="cpu")
    model = attached(loaded, reader, kind)
    ours, names = score_sequences(model, ROWS), labels_of(model)
    saved = tmp_path / "adapter"
    save_adapter(model, loaded.tokenizer, saved, base_name=str(base_folder))

    count = max(1, len(reader.labels))
    if kind == "full":
        theirs = AutoModelForSequenceClassification.from_pretrained(saved).eval()
        assert tuple(theirs.config.id2label.values()) == names
        assert theirs.config.architectures == ["LlamaForSequenceClassification"]
    else:
        config = json.loads((saved / "adapter_config.json").read_text())
        assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
        assert config["base_model_name_or_path"] == str(base_folder)
        torch.manual_seed(99)
        bare = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=count)
        theirs = PeftModel.from_pretrained(bare, str(saved)).eval()
    assert relative_error(transformers_outputs(theirs), ours) < 1e-5

    fresh = load_model(str(base_folder), device="cpu")
    state = torch.get_rng_state()
    back = load_adapter(fresh, saved)
    assert kind != "full" or torch.equal(torch.get_rng_state(), state), (
        "a head nobody asked for is drawn apart"
    )
    assert relative_error(score_sequences(back, ROWS), ours) < 1e-6
    assert labels_of(back) == names
    assert not any(parameter.requires_grad for parameter in back.parameters())
    assert not back.training


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_other_architectures_names(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """GPT-2 keeps its blocks elsewhere, Qwen has biases, GPT-NeoX another prefix."""
    for architecture in ("gpt2", "qwen2", "gpt_neox"):
        folder = tmp_path / architecture
        tiny(architecture, vocab_size=len(tokenizer)).save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        for kind in ("lora", "full"):
            loaded = load_model(str(folder), device="cpu")
            model = attached(loaded, Reward(), kind)
            ours, saved = score_sequences(model, ROWS[:4]), tmp_path / f"{architecture}-{kind}"
            save_adapter(model, loaded.tokenizer, saved, base_name=str(folder))
            source = saved if kind == "full" else folder
            theirs = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
            if kind == "lora":
                theirs = PeftModel.from_pretrained(theirs, str(saved))
            assert relative_error(transformers_outputs(theirs.eval(), ROWS[:4]), ours) < 1e-5, architecture


def test_training_can_go_on_from_a_loaded_heads_weights(base_folder: Path, tmp_path: Path) -> None:
    """What is in the file is what was trained, not the start that PEFT keeps beside it."""
    loaded = load_model(str(base_folder), device="cpu")
    model = attached(loaded, Reward(), "lora")
    head = find_head(model, "sequence")
    assert head is not None
    with torch.no_grad():
        head.weight.add_(1.0)  # type: ignore[operator,union-attr]
    save_adapter(model, loaded.tokenizer, tmp_path / "adapter", base_name="base")
    with safe_open(tmp_path / "adapter/adapter_model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("base_model.model.score.weight"), head.weight)  # type: ignore[arg-type]
        assert sum("score" in key for key in file.keys()) == 1  # noqa: SIM118 not a mapping


def test_a_damaged_adapter_is_refused(base_folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(base_folder), device="cpu")
    save_adapter(attached(loaded, Reward(), "lora"), loaded.tokenizer, tmp_path / "adapter", base_name="base")
    other = LoadedModel(tiny("llama", num_hidden_layers=1, vocab_size=len(loaded.tokenizer)), None, "x")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="does not fit the model"):
        load_adapter(other, tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_value_head_is_not_saved(kind: str, base_folder: Path, tmp_path: Path) -> None:
    """What is shipped is the policy: the very files that it has without one."""
    loaded = load_model(str(base_folder), device="cpu")
    model = attached(loaded, VALUE, kind)
    save_adapter(model, loaded.tokenizer, tmp_path / "with", base_name="base")
    detach_head(model, "tokens")
    save_adapter(model, loaded.tokenizer, tmp_path / "without", base_name="base")
    for path in sorted((tmp_path / "without").iterdir()):
        assert path.read_bytes() == (tmp_path / "with" / path.name).read_bytes(), path.name
    assert len(list((tmp_path / "with").iterdir())) == len(list((tmp_path / "without").iterdir()))
    if kind == "full":
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "with") is not None
    back = load_adapter(load_model(str(base_folder), device="cpu"), tmp_path / "with")
    assert find_head(back, "tokens") is None and find_head(back, "sequence") is None


def test_an_adapter_that_is_switched_off_and_on_trains_its_head_again() -> None:
    model = with_head(Reward())
    assert isinstance(model, PeftModel)
    before, values = trainable(model), score_sequences(model, ROWS)
    with model.disable_adapter():
        assert not torch.equal(score_sequences(model, ROWS), values)
    assert equal(before, trainable(model))
    assert torch.equal(score_sequences(model, ROWS), values)
