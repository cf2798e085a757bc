"""Shared fixtures: a tiny chat tokenizer and tiny models; few threads, since tests share the machine."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from chat_tokenizers import byte_level
from hypothesis import HealthCheck, settings
from tiny_models import tiny
from transformers import PreTrainedTokenizerFast

from luthier.chat import ChatFormat
from luthier.models import LoadedModel

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

torch.set_num_threads(1)  # tiny tensors: a second thread only waits
# The fast suite draws the same examples every time, so that it is red only where something changed; the whole
# one looks for new examples (`--hypothesis-profile=search`). Neither fails for being slow.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", patient, derandomize=True)
settings.register_profile("search", patient)
settings.load_profile("repeatable")


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of about 400 tokens that writes ChatML."""
    return byte_level(CHATML, ("<|im_start|>", "<|im_end|>"))


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return chatml_tokenizer()


@pytest.fixture
def chat(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    return ChatFormat(tokenizer)


@pytest.fixture
def loaded(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """A tiny Llama whose vocabulary is the tokenizer's, as `load_model` gives it."""
    model = tiny("llama", vocab_size=len(tokenizer))
    return LoadedModel(model.requires_grad_(False), tokenizer, "tiny")
