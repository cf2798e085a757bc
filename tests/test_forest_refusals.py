"""What the forest does not compute is said: by an error, or by falling back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from exactness import check
from forests import Forest
from tiny_models import tiny
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from luthier.errors import ModelError
from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning, checked_head

ROWS: Forest = [[3, 4, 5, 6, 7], [3, 4, 5, 8], [9, 10]]
SIZES = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 97}


def test_an_encoder_and_decoder_is_refused() -> None:
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **SIZES))
    with pytest.raises(ModelError, match="not a causal language model"):
        logprobs(model, ROWS)


def test_an_adapter_that_begins_at_a_token_of_the_sequence_is_refused() -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], alora_invocation_tokens=[5, 6])
    model = peft.get_peft_model(tiny("llama"), config)
    with pytest.raises(ModelError, match="activated LoRA"):
        logprobs(model, ROWS)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_adapters_mixed_by_the_whole_sequence_are_refused(tmp_path: Path) -> None:
    """X-LoRA asks the model first how to mix: what a token gets depends on those after it."""
    for name in ("a", "b"):
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
        peft.get_peft_model(tiny("llama"), config).save_pretrained(tmp_path / name)
    adapters = {name: str(tmp_path / name) for name in ("a", "b")}
    mixed = peft.XLoraConfig(task_type="CAUSAL_LM", hidden_size=32, xlora_depth=1, adapters=adapters)
    model = peft.get_peft_model(tiny("llama", use_cache=False), mixed)
    with pytest.raises(ModelError, match="X-LoRA"):
        logprobs(model, ROWS)


DROPPING: dict[str, Any] = {
    "rank_dropout": peft.LoHaConfig(target_modules=["q_proj"], rank_dropout=0.5),
    "module_dropout": peft.LoKrConfig(target_modules=["q_proj"], module_dropout=0.5),
}


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_without_a_module_is_noticed(name: str) -> None:
    model = peft.get_peft_model(tiny("llama"), DROPPING[name])
    check(model.eval(), ROWS)
    with pytest.warns(FallbackWarning, match=name):
        logprobs(model.train(), ROWS)


@pytest.mark.parametrize("range_", [0.3, 0.005])
def test_a_cap_of_the_models_own_is_seen_while_its_logits_are_small(range_: float) -> None:
    plain, capped = (tiny("llama", initializer_range=range_) for _ in range(2))
    capped.lm_head.register_forward_hook(lambda _, args, out: 30.0 * torch.tanh(out / 30.0))
    assert checked_head(plain) is not None
    assert checked_head(capped) is None
    check(capped, ROWS)
