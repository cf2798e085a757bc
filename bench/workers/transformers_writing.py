"""The peer's side of generation: Transformers' `generate` in left-padded batches, all prompts per go."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from bench.peers import TransformersSettings
from bench.protocol import Line, Steps
from bench.work import common_prefix
from luthier.models import load_model

PROBE_PROMPTS = 32  # enough to tell settings apart that compute every prompt from its start


def main() -> None:
    """Continue all prompts, again and again."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    settings = TransformersSettings(**job["settings"])
    prompts = json.loads((Path(job["folder"]) / "questions.json").read_text(encoding="utf-8"))
    if job.get("probe") and settings.cache != "prefix":
        prompts = prompts[:PROBE_PROMPTS]
    model = load_model(job["model"], device="cpu").model
    # an unset value of a given configuration is filled in from the model's own, which ends an answer early
    model.generation_config.eos_token_id = None
    _write(model, prompts[:2], settings, 2)  # what a first call sets up is no part of a step
    steps = Steps(line)
    steps.begin()
    while True:
        written = _write(model, prompts, settings, job["new_tokens"])
        steps.end_step(written=written, tokens=sum(map(len, [*prompts, *written])))


def _write(
    model: PreTrainedModel, prompts: list[list[int]], settings: TransformersSettings, new_tokens: int
) -> list[list[int]]:
    """New tokens of every prompt; neighbours in length share a batch, so that little is padded."""
    config = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, pad_token_id=0)
    if settings.cache == "static":
        config.cache_implementation = "static"
    shared, prefix = 0, None
    if settings.cache == "prefix":
        ordered = sorted(prompts)
        shared = common_prefix(ordered[0], ordered[-1])
        prefix = _prefix_cache(model, prompts[0][:shared])
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    results: dict[int, list[int]] = {}
    for start in range(0, len(order), settings.batch_size):
        chosen = order[start : start + settings.batch_size]
        ids, mask = pad_left([prompts[i] for i in chosen], shared)
        cache = None
        if prefix is not None:
            cache = copy.deepcopy(prefix)
            cache.batch_repeat_interleave(len(chosen))
        output = model.generate(  # type: ignore[operator]
            ids, attention_mask=mask, generation_config=config, past_key_values=cache
        )
        results |= zip(chosen, output[:, ids.shape[1] :].tolist(), strict=True)
    return [results[i] for i in range(len(prompts))]


def _prefix_cache(model: PreTrainedModel, ids: list[int]) -> DynamicCache:
    """As Transformers' documentation prefills a cache to reuse it."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def pad_left(rows: list[list[int]], shared: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask `[B, T]`: padding stands before each row, but after the `shared` tokens of all."""
    longest = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        gap = longest - len(row)
        ids.append([*row[:shared], *[0] * gap, *row[shared:]])
        mask.append([1] * shared + [0] * gap + [1] * (len(row) - shared))
    return torch.tensor(ids), torch.tensor(mask)


if __name__ == "__main__":
    main()
