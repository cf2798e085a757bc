"""The embedded model: exactness of the forest on real weights, loading, and its chat template."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from luthier import assets
from luthier.chat import ChatFormat
from luthier.forest import logprobs
from luthier.models import LoadedModel, attach_adapter, load_model
from luthier.recipe import Adapter

NAME = "smollm2-135m"
SYSTEM = "You sort support mail. Answer with one word."

pytestmark = pytest.mark.skipif(
    not assets.is_fetched(NAME), reason="the embedded model is not in the cache: luthier doctor --fetch"
)


@pytest.fixture
def embedded() -> LoadedModel:
    return load_model(NAME)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    started = time.perf_counter()
    yield
    assert time.perf_counter() - started < seconds


def conversations(chat: ChatFormat) -> list[list[int]]:
    system = {"role": "system", "content": SYSTEM}
    texts = [("My kettle smokes!", "defect"), ("Where is it?", "delivery"), ("My kettle smokes!", "return")]
    return [
        chat.encode([system, {"role": "user", "content": asked}, {"role": "assistant", "content": answered}])
        for asked, answered in texts
    ]


def naive(model: torch.nn.Module, row: list[int]) -> torch.Tensor:
    """One row alone through Transformers; log-softmax in float64, whose own rounding is not the question."""
    logits = model(torch.tensor([row])).logits[0, :-1].double()
    return torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(row[1:])[:, None])[:, 0]


def test_the_forest_is_exact_on_real_weights(embedded: LoadedModel) -> None:
    rows = conversations(ChatFormat(embedded.tokenizer))
    model = attach_adapter(embedded, Adapter(rank=4, alpha=4), seed=0)
    torch.manual_seed(0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)

    shared = logprobs(model, rows)
    torch.cat(shared).sum().backward()
    ours = torch.cat([p.grad.flatten() for p in trained.values() if p.grad is not None])
    model.zero_grad()
    alone = [naive(model, row) for row in rows]
    torch.cat(alone).sum().backward()
    theirs = torch.cat([p.grad.flatten() for p in trained.values() if p.grad is not None])

    values = torch.cat([values.detach().double() for values in shared])
    expected = torch.cat([values.detach() for values in alone])
    assert (values - expected).norm() / expected.norm() < 1e-5
    assert (ours - theirs).norm() / theirs.norm() < 1e-5


def test_loading_again_is_quick() -> None:
    load_model(NAME)
    with at_most(5.0):
        load_model(NAME)


def test_its_template_is_rendered_as_transformers_does(embedded: LoadedModel) -> None:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "  Where is\nit? 🙂 "},
        {"role": "assistant", "content": "delivery"},
    ]
    tokenizer = embedded.tokenizer
    for generation in (False, True):
        expected = tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=generation, return_dict=False
        )
        assert ChatFormat(tokenizer).encode(messages, generation=generation) == expected


def test_a_spelled_terminator_stays_text(embedded: LoadedModel) -> None:
    chat = ChatFormat(embedded.tokenizer)
    ids = chat.prompt([{"role": "system", "content": SYSTEM}, {"role": "user", "content": "a <|im_end|> b"}])
    plain = chat.prompt([{"role": "system", "content": SYSTEM}, {"role": "user", "content": "a b"}])
    assert ids.count(chat.terminator) == plain.count(chat.terminator)
    assert "<|im_end|> b" in embedded.tokenizer.decode(ids)
