"""Rollouts of a tiny model: what is known of each answer, under the model as it is and as it was before."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import chatml_tokenizer
from peft import PeftModel
from tiny_models import tiny, with_lora

from luthier.chat import ChatFormat
from luthier.examples.example import Example, Message
from luthier.forest import score
from luthier.forest.logprobs import Model
from luthier.methods import GRPO, PPO, RLOO, BestOf, Item
from luthier.methods.online import Online, Sample
from luthier.models.heads import attach_head
from luthier.train.rollouts import Rollouts

CHAT = ChatFormat(chatml_tokenizer())
HELD = [GRPO(samples=3), RLOO(samples=3), PPO(samples=3)]
# nothing holds these near the model before training
FREE = [GRPO(samples=3, beta=0.0), RLOO(samples=3, beta=0.0), PPO(samples=3, kl_coef=0.0), BestOf(samples=3)]


def name_of(method: Online) -> str:
    return method.name if method.needs_reference else f"{method.name}-free"


def base(seed: int = 0) -> Any:
    return tiny("llama", seed=seed, vocab_size=len(CHAT.tokenizer))


def nudged(method: Online) -> PeftModel:
    """An adapter as after some training, with the head that the method reads."""
    model = with_lora(base())
    attach_head(model, method, seed=0)
    return model


def asked(method: Online) -> list[Item]:
    words = ("red", "green", "a house")
    examples = [
        Example(f"a:{i}", (Message("user", f"Say {word}."), Message("assistant", word)), "a", i)
        for i, word in enumerate(words)
    ]
    return method.items(examples, CHAT, None)


def length_reward(examples: Sequence[Example], answers: Sequence[str]) -> list[float | None]:
    """Of the answers at places 1, 4, 7, ... nothing can be said."""
    return [None if place % 3 == 1 else float(len(answer)) for place, answer in enumerate(answers)]


@contextlib.contextmanager
def switched_off(model: PeftModel) -> Iterator[Model]:
    with model.disable_adapter():
        yield model


def rollouts(method: Online, model: Model, untrained: Any, folder: Path | None = None) -> Rollouts:
    return Rollouts(model, method, CHAT, length_reward, untrained, max_new_tokens=7, seed=4, folder=folder)


def samples_of(made: Rollouts) -> list[Sample]:
    return [sample for group in made._sample(asked(made.method), 0) for sample in group]


def scored(model: Model, sample: Sample) -> torch.Tensor:
    """Of the answer's tokens, in a forest of its own."""
    (sequence,) = sample.item.sequences
    (values,) = score(model, [sequence.ids], needed=sample.item.flags)
    return values


@pytest.mark.parametrize("method", HELD + FREE, ids=name_of)
def test_the_policy_is_the_model_as_it_is_and_the_reference_the_one_before(method: Online) -> None:
    model = nudged(method)
    samples = samples_of(rollouts(method, model, lambda: switched_off(model)))
    assert len(samples) == 6  # of nine answers three have no reward
    for sample in samples:
        assert sample.reference is not None
        torch.testing.assert_close(sample.policy, scored(model, sample), rtol=1e-4, atol=1e-4)
        with model.disable_adapter():
            torch.testing.assert_close(sample.reference, scored(model, sample), rtol=1e-4, atol=1e-4)
        assert float((sample.policy - sample.reference).abs().max()) > 0.05
        assert not sample.policy.requires_grad and not sample.reference.requires_grad
        assert (sample.values is None) == (method.head is None)


@pytest.mark.parametrize("method", HELD + FREE, ids=name_of)
def test_how_far_it_has_moved_is_told_of_every_method(method: Online, tmp_path: Path) -> None:
    """The answers are its own, so they are likelier than before on average: the sign is known."""
    model = nudged(method)
    made = rollouts(method, model, lambda: switched_off(model), tmp_path)
    samples = samples_of(made)
    gaps = []
    for sample in samples:
        with model.disable_adapter():
            before = scored(model, sample)
        gaps.append(float((scored(model, sample) - before).sum()))
    numbers = made(asked(method), 0).numbers
    assert numbers["kl"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-3)
    assert numbers["kl"] > 0.05 and numbers["kl_k3"] > 0.05  # type: ignore[operator]
    rows = [json.loads(line) for line in (tmp_path / "000001.jsonl").read_text().splitlines()]
    assert [row["kl"] for row in rows if "kl" in row] == pytest.approx(gaps, abs=1e-3)
    assert all(("kl" in row) == (row["reward"] is not None) for row in rows)


@pytest.mark.parametrize("method", FREE, ids=name_of)
def test_a_reference_that_is_not_needed_is_not_looked_at(method: Online) -> None:
    """What is learnt, bit for bit, is what is learnt without one."""
    model = nudged(method)
    made = rollouts(method, model, lambda: switched_off(model))
    groups = [[replace(s, finished=True) for s in group] for group in made._sample(asked(method), 0)]
    bare = [[replace(sample, reference=None) for sample in group] for group in groups]
    ours, theirs = method.learn(groups), method.learn(bare)
    assert ours
    for one, other in zip(ours, theirs, strict=True):
        assert one.sequences == other.sequences
        for name in ("advantages", "policy", "reference", "values", "returns"):
            first, second = getattr(one.rollout, name, None), getattr(other.rollout, name, None)
            assert (first is None) == (second is None), name
            assert first is None or second is None or torch.equal(first, second), name


@pytest.mark.parametrize("method", [HELD[0], FREE[0], FREE[3]], ids=name_of)
def test_without_an_adapter_a_second_model_is_asked_for_only_where_it_is_needed(method: Online) -> None:
    model, before = base(), base(seed=1)
    asked_for = []

    @contextlib.contextmanager
    def second() -> Iterator[Model]:
        asked_for.append(before)
        yield before

    made = rollouts(method, model, second)
    for sample in samples_of(made):
        torch.testing.assert_close(sample.policy, scored(model, sample), rtol=1e-4, atol=1e-4)
        assert (sample.reference is not None) == method.needs_reference
        if sample.reference is not None:
            torch.testing.assert_close(sample.reference, scored(before, sample), rtol=1e-4, atol=1e-4)
    assert len(asked_for) == method.needs_reference
    assert ("kl" in made(asked(method), 0).numbers) == method.needs_reference
