"""Generation in batches, with the prefix that all prompts share computed once.

Legend: B rows in a batch, P shared prefix tokens, L longest rest of a prompt in the batch.

Prompts are sorted by length so that little is padded; a finished row leaves the batch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

from luthier.forest.layout import common_prefix
from luthier.forest.logprobs import Model, causal_lm

MIN_PREFIX = 16  # below this a shared prefix is not worth a forward of its own


@dataclass(frozen=True)
class Generated:
    """One answer.

    Attributes:
        ids: the tokens written, without the stop token.
        logprob: summed log-probability of the tokens written, the stop token included.
        finished: whether a stop token ended it (False: `max_new_tokens` did).
        seconds: this row's share of its batch's time.
    """

    ids: tuple[int, ...]
    logprob: float
    finished: bool
    seconds: float


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda finished: None,
) -> list[Generated]:
    """Continue every prompt, greedily at temperature 0, else by sampling.

    Args:
        prompts: token ids; each at least one token.
        advance: called with the number of prompts finished, after each batch.

    Returns:
        One result per prompt, in the order given.
    """
    if not prompts:
        return []
    base = causal_lm(model)
    rows = [list(prompt) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    sampler = torch.Generator().manual_seed(seed)
    results: dict[int, Generated] = {}
    with torch.inference_mode():
        started = time.perf_counter()
        shared, prefix = _prefix_cache(base, rows)
        prefix_seconds = (time.perf_counter() - started) / len(rows)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            started = time.perf_counter()
            texts = [rows[i][shared:] for i in chosen]
            cache = copy.deepcopy(prefix)
            finished = _continue(base, texts, shared, cache, max_new_tokens, stop_ids, temperature, sampler)
            share = (time.perf_counter() - started) / len(chosen) + prefix_seconds
            for i, (ids, logprob, ended) in zip(chosen, finished, strict=True):
                results[i] = Generated(tuple(ids), logprob, ended, share)
            advance(len(chosen))
    return [results[i] for i in range(len(rows))]


def _prefix_cache(base: PreTrainedModel, rows: list[list[int]]) -> tuple[int, DynamicCache]:
    """Length and cache of the tokens that all prompts start with; each keeps at least one of its own."""
    cache = DynamicCache(config=base.config)
    ordered = sorted(rows)
    shared = min(common_prefix(ordered[0], ordered[-1]), min(map(len, rows)) - 1)
    if len(rows) == 1 or shared < MIN_PREFIX:
        return 0, cache
    ids = torch.tensor([rows[0][:shared]], device=base.get_input_embeddings().weight.device)
    base(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return shared, cache


def _continue(
    base: PreTrainedModel,
    texts: list[list[int]],
    shared: int,
    cache: DynamicCache,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    temperature: float,
    sampler: torch.Generator,
) -> list[tuple[list[int], float, bool]]:
    device = base.get_input_embeddings().weight.device
    width = max(map(len, texts))
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.ones(len(texts), shared + width, dtype=torch.long)
    positions = torch.zeros(len(texts), width, dtype=torch.long)
    for row, text in enumerate(texts):
        pad = width - len(text)
        ids[row, pad:] = torch.tensor(text)
        mask[row, shared : shared + pad] = 0
        positions[row, pad:] = torch.arange(shared, shared + len(text))
    ids, mask, positions = ids.to(device), mask.to(device), positions.to(device)
    if shared:
        cache.batch_repeat_interleave(len(texts))

    written: list[list[int]] = [[] for _ in texts]
    logprobs = [0.0] * len(texts)
    ended = [False] * len(texts)
    alive = list(range(len(texts)))
    for _ in range(max_new_tokens):
        output = base(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logp = torch.log_softmax(output.logits[:, -1].float(), dim=-1)
        tokens = _choose(logp, temperature, sampler)
        gained = logp.gather(1, tokens[:, None])[:, 0].tolist()
        keep = []
        for place, (row, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            logprobs[row] += gained[place]
            if token in stop_ids:
                ended[row] = True
            else:
                written[row].append(token)
                keep.append(place)
        if not keep:
            break
        if len(keep) < len(alive):
            kept = torch.tensor(keep, device=device)
            cache.batch_select_indices(kept)
            tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
            alive = [alive[place] for place in keep]
        ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return list(zip(written, logprobs, ended, strict=True))


def _choose(logp: torch.Tensor, temperature: float, sampler: torch.Generator) -> torch.Tensor:
    """Next tokens `[B]` from log-probabilities `[B, V]`."""
    if temperature <= 0:
        return logp.argmax(dim=-1)
    weights = torch.softmax(logp.cpu() / temperature, dim=-1)
    return torch.multinomial(weights, 1, generator=sampler)[:, 0].to(logp.device)
