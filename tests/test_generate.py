"""Generation equals Transformers' own, prompt by prompt, however prompts share, are batched and stop."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from functools import cache, lru_cache
from typing import Any

import pytest
import torch
from forests import forests
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SHARING, VOCABULARY, relative_error, tiny, with_lora

from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning, causal_lm
from luthier.generate import Generated, generate

STOP = frozenset({2, 50, 51, 52, 53})
tiny_once = cache(tiny)
LENGTHS = (1, 7, 3, 12, 2, 5, 3)


def make_prompts(shared: int) -> list[list[int]]:
    choose = random.Random(shared)
    trunk = [choose.randrange(3, VOCABULARY) for _ in range(shared)]
    prompts = [[*trunk, *(choose.randrange(3, VOCABULARY) for _ in range(n))] for n in LENGTHS]
    return [*prompts, prompts[1], prompts[1][:-2]]


@lru_cache(maxsize=500)
def by_transformers(model: Any, prompt: tuple[int, ...], max_new_tokens: int) -> tuple[list[int], bool]:
    output = causal_lm(model).generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(STOP),
        pad_token_id=0,
    )
    written = output[0, len(prompt) :].tolist()
    ended = written[-1] in STOP
    return (written[:-1] if ended else written), ended


def check_greedy(model: Any, prompts: list[list[int]], results: list[Generated], max_new_tokens: int) -> None:
    """Token for token what Transformers writes for each prompt alone; a tie may go either way."""
    for prompt, result in zip(prompts, results, strict=True):
        ids, finished = by_transformers(model, tuple(prompt), max_new_tokens)
        if (list(result.ids), result.finished) == (ids, finished):
            continue
        same = next((i for i, (a, b) in enumerate(zip(result.ids, ids, strict=False)) if a != b), None)
        same = min(len(ids), len(result.ids)) if same is None else same
        with torch.no_grad():
            logits = causal_lm(model)(torch.tensor([[*prompt, *ids[:same]]]), use_cache=False).logits[0, -1]
        best, second = torch.topk(logits, 2).values.tolist()
        assert best - second < 1e-4, f"after {same} tokens of {prompt}: {list(result.ids)}, not {ids}"


def check_logprobs(
    model: Any, prompts: list[list[int]], results: list[Generated], stop: frozenset[int] = STOP
) -> None:
    """The log-probability is the model's, of the tokens written and of ending there by any stop token."""
    for prompt, result in zip(prompts, results, strict=True):
        ends = sorted(stop) if result.finished else [None]
        rows = [[*prompt, *result.ids, *([] if end is None else [end])] for end in ends]
        values = torch.stack([row[len(prompt) - 1 :].sum() for row in logprobs(model, rows)])
        assert result.logprob == pytest.approx(values.logsumexp(0).item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("batch_size", [3, 32])
@pytest.mark.parametrize("shared", [0, 8, 20])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2"])
def test_greedy_equals_transformers(kind: str, shared: int, batch_size: int) -> None:
    model, prompts = tiny_once(kind), make_prompts(shared)
    results = generate(model, prompts, max_new_tokens=9, stop_ids=STOP, batch_size=batch_size)
    check_greedy(model, prompts, results, 9)
    check_logprobs(model, prompts, results)


@pytest.mark.parametrize(
    "kind", ["qwen3", "gemma2", "gemma3_text", "gpt_neox", "phi3", "granite", "cohere2", "mixtral", "gpt_oss"]
)
def test_greedy_equals_transformers_on_other_architectures(kind: str) -> None:
    model, prompts = tiny(kind), make_prompts(20)
    results = generate(model, prompts, max_new_tokens=9, stop_ids=STOP, batch_size=4)
    check_greedy(model, prompts, results, 9)
    check_logprobs(model, prompts, results)


def check_random(kind: str, data: st.DataObject) -> None:
    trunk = list(range(30, 30 + data.draw(st.sampled_from([0, 3, 15, 16, 17, 24]), label="trunk")))
    prompts = [[*trunk, *row] for row in data.draw(forests(max_sequences=8, max_length=12))]
    limit = data.draw(st.integers(1, 8), label="max_new_tokens")
    model, size = tiny_once(kind), data.draw(st.integers(1, 9), label="batch_size")
    results = generate(model, prompts, max_new_tokens=limit, stop_ids=STOP, batch_size=size)
    check_greedy(model, prompts, results, limit)
    check_logprobs(model, prompts, results)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@settings(max_examples=4)
@given(data=st.data())
def test_random_prompts(kind: str, data: st.DataObject) -> None:
    check_random(kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARING)
@settings(max_examples=25)
@given(data=st.data())
def test_many_random_prompts(kind: str, data: st.DataObject) -> None:
    check_random(kind, data)


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gpt_oss"])
def test_a_window_slides_from_the_trunk_into_what_is_written(kind: str) -> None:
    """Window 4 over a trunk of 20: the first new tokens see some of it, the later ones nothing of it."""
    model, prompts = tiny(kind), make_prompts(20)
    results = generate(model, prompts, max_new_tokens=12, stop_ids=frozenset())
    assert {len(r.ids) for r in results} == {12}
    check_logprobs(model, prompts, results)


def test_rows_leave_the_batch_one_after_the_other() -> None:
    """Every row has a stop token of its own time; those that stay are not disturbed."""
    model, prompts = tiny("llama"), make_prompts(20)
    free = generate(model, prompts, max_new_tokens=9, stop_ids=frozenset())
    for stop in sorted({token for r in free for token in r.ids})[::4]:
        results = generate(model, prompts, max_new_tokens=9, stop_ids=frozenset({stop}))
        for result, long in zip(results, free, strict=True):
            cut = long.ids.index(stop) if stop in long.ids else 9
            assert (result.ids, result.finished) == (long.ids[:cut], stop in long.ids)


@pytest.mark.parametrize("kind", ["mamba", "lfm2", "diffllama", "llama4_text"])
def test_what_cannot_share_writes_row_by_row(kind: str) -> None:
    model, prompts = tiny(kind), make_prompts(20)
    with pytest.warns(FallbackWarning):
        results = generate(model, prompts, max_new_tokens=5, stop_ids=STOP)
    expected = []
    for prompt in prompts:  # without a cache: some of these models' caches are what is in doubt
        ids = list(prompt)
        while len(ids) < len(prompt) + 5 and ids[len(prompt) :][-1:] not in [[stop] for stop in STOP]:
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        written = ids[len(prompt) :]
        expected.append([t for t in written if t not in STOP])
    assert [list(r.ids) for r in results] == expected
    check_logprobs(model, prompts, results)


def test_an_adapter_is_used() -> None:
    model, prompts = with_lora(tiny("llama")), make_prompts(20)
    results = generate(model, prompts, max_new_tokens=6, stop_ids=STOP)
    assert [(list(r.ids), r.finished) for r in results] == [
        by_transformers(model, tuple(p), 6) for p in prompts
    ]
    plain = generate(tiny("llama"), prompts, max_new_tokens=6, stop_ids=STOP)
    assert [r.ids for r in plain] != [r.ids for r in results]


def test_some_answers_finish_and_their_stop_token_counts() -> None:
    model, prompts = tiny("llama"), make_prompts(0)
    free = generate(model, prompts, max_new_tokens=9, stop_ids=frozenset())
    assert all(len(r.ids) == 9 and not r.finished for r in free)
    stop = Counter(t for r in free for t in r.ids[1:]).most_common(1)[0][0]
    results = generate(model, prompts, max_new_tokens=9, stop_ids=frozenset({stop}))
    assert {r.finished for r in results} == {True, False}
    for prompt, result, long in zip(prompts, results, free, strict=True):
        cut = long.ids.index(stop) if stop in long.ids else 9
        assert result.ids == long.ids[:cut]
        text = [*prompt, *result.ids, *([stop] if result.finished else [])]
        (value,) = logprobs(model, [text])
        assert result.logprob == pytest.approx(value[len(prompt) - 1 :].sum().item(), rel=1e-4)


@pytest.mark.parametrize("limit", [1, 2])
def test_max_new_tokens(limit: int) -> None:
    results = generate(tiny("llama"), make_prompts(0), max_new_tokens=limit, stop_ids=frozenset())
    assert {len(r.ids) for r in results} == {limit}


def test_all_prompts_the_same() -> None:
    model = tiny("llama")
    prompt = make_prompts(20)[0]
    results = generate(model, [prompt] * 5, max_new_tokens=4, stop_ids=STOP)
    assert {r.ids for r in results} == {tuple(by_transformers(model, tuple(prompt), 4)[0])}


def test_nothing_to_do_and_progress() -> None:
    model, finished = tiny("llama"), []
    assert generate(model, [], max_new_tokens=4, stop_ids=STOP) == []
    results = generate(
        model, make_prompts(0), max_new_tokens=9, stop_ids=STOP, batch_size=2, advance=finished.append
    )
    assert sum(finished) == len(results) == 9
    assert all(r.seconds > 0 for r in results)
    assert model.config._attn_implementation == "sdpa"


def test_sampling_is_reproducible() -> None:
    model, prompts = tiny("llama", initializer_range=0.1), make_prompts(20)

    def sample(seed: int) -> list[tuple[int, ...]]:
        torch.manual_seed(random.randrange(10**6))
        results = generate(
            model, prompts, max_new_tokens=8, stop_ids=STOP, temperature=1.0, seed=seed, batch_size=4
        )
        check_logprobs(model, prompts, results)
        return [r.ids for r in results]

    assert sample(1) == sample(1) != sample(2)


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_samples_follow_the_models_distribution(kind: str) -> None:
    model, prompt, temperature = tiny(kind, vocab_size=8, initializer_range=0.15), [3, 4, 5], 0.7
    count = 3000 if kind == "llama" else 80
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        results = generate(
            model,
            [prompt] * count,
            max_new_tokens=1,
            stop_ids=frozenset(),
            temperature=temperature,
            batch_size=1000,
        )
    logits = model(torch.tensor([prompt]), use_cache=False).logits[0, -1].detach()
    expected = torch.softmax(logits / temperature, dim=-1) * count
    counts = Counter(r.ids[0] for r in results)
    observed = torch.tensor([float(counts[t]) for t in range(8)])
    assert float(((observed - expected) ** 2 / expected).sum()) < 24.3  # chi-square, 7 degrees, p = 0.001


def test_a_low_temperature_is_nearly_greedy() -> None:
    model, prompts = tiny("llama"), make_prompts(0)
    greedy = generate(model, prompts, max_new_tokens=4, stop_ids=STOP)
    cold = generate(model, prompts, max_new_tokens=4, stop_ids=STOP, temperature=1e-4, seed=3)
    assert [r.ids for r in cold] == [r.ids for r in greedy]
    assert (
        relative_error(torch.tensor([r.logprob for r in cold]), torch.tensor([r.logprob for r in greedy]))
        < 1e-4
    )


def test_a_position_encoding_of_the_longest_row_writes_row_by_row() -> None:
    """Beyond the limit the frequencies change with the length: rows of a batch would disturb one another."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = tiny("llama", rope_parameters=rope, max_position_embeddings=12)
    short, long = [[3, 4, 5], [3, 4, 6]], [[3, 4, 5, 6, 7, 8], [3, 4]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(model, short, max_new_tokens=9, stop_ids=frozenset())
    with pytest.warns(FallbackWarning, match="position encoding"):
        generate(model, long, max_new_tokens=9, stop_ids=frozenset())
