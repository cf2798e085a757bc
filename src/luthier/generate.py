"""Generation in batches: prompts as a forest, then one token a step against what the rows share.

The prefix that all prompts share is computed and stored once; prompts of a batch share what else they
can; a finished row leaves the batch. An architecture that cannot share generates row by row.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from luthier.constrain import Constraint, Walk, forbid_others
from luthier.forest.attention import Unsupported, attending_by_forest
from luthier.forest.decoding import NAME as DECODING
from luthier.forest.decoding import Rows
from luthier.forest.head import Head
from luthier.forest.layout import KeysValues, Layout, common_prefix, lay_out
from luthier.forest.logprobs import Model, can_share, causal_lm, checked_head, device_of, score
from luthier.forest.packing import pack
from luthier.forest.root import has_root, join_trunks, root_of, root_trunk
from luthier.forest.sharing import refuse_unequal_rows, refuse_untried_lengths, warn_of_fallback

MIN_TRUNK = 16  # below this a shared prefix is not worth a forward of its own
PREFILL_TOKENS = 2048


@dataclass(frozen=True)
class Generated:
    """One answer.

    Attributes:
        ids: the tokens written, without the stop token.
        logprob: summed log-probability of the tokens written, and of ending there by any of the stop
            tokens where one came; under a constraint
            at every token among those that were allowed.
        stop_id: the stop token that ended it; None where `max_new_tokens` did.
        seconds: this row's share of its batch's time.
    """

    ids: tuple[int, ...]
    logprob: float
    stop_id: int | None
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether a stop token ended it."""
        return self.stop_id is not None


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 128,
    constraint: Constraint | None = None,
    advance: Callable[[int], None] = lambda finished: None,
) -> list[Generated]:
    """Continue every prompt, greedily at temperature 0, else by sampling.

    Args:
        prompts: token ids; each at least one token.
        constraint: what every answer must be; its log-probability is then that of the constrained writer.
        advance: called with the number of prompts finished, as they finish.

    Returns:
        One result per prompt, in the order given.
    """
    if not prompts:
        return []
    base = causal_lm(model)
    rows = [list(prompt) for prompt in prompts]
    sampler = torch.Generator().manual_seed(seed)
    results: dict[int, Generated] = {}
    head = checked_head(base)
    with torch.inference_mode():
        if not _can_share_rows(model, rows, max_new_tokens) or head is None:
            for i, row in enumerate(rows):
                results[i] = _row_by_row(
                    model, row, max_new_tokens, stop_ids, temperature, seed + i, constraint
                )
                advance(1)
            return [results[i] for i in range(len(rows))]
        started = time.perf_counter()
        before, trunk = root_trunk(model)
        length, trunk = _trunk(base, rows, before, trunk)
        trunk_seconds = (time.perf_counter() - started) / len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            started = time.perf_counter()
            texts = [rows[i][length:] for i in chosen]
            writing = _Writing(base, head, texts, trunk, before + length, max_new_tokens)
            finished = list(writing.run(stop_ids, temperature, sampler, constraint, advance))
            share = (time.perf_counter() - started) / len(chosen) + trunk_seconds
            for i, (ids, logprob, stop) in zip(chosen, finished, strict=True):
                results[i] = Generated(tuple(ids), logprob, stop, share)
    return [results[i] for i in range(len(rows))]


def _can_share_rows(model: Model, rows: list[list[int]], max_new_tokens: int) -> bool:
    """Whether the forest is exact on prompts of these lengths and on what is written after them."""
    if not can_share(model):
        return False
    root = root_of(model)
    try:
        refuse_unequal_rows(model, [[*row, *[0] * max_new_tokens] for row in rows], root)
        reach = max(map(len, rows)) + max_new_tokens + (root.length if root else 0)
        refuse_untried_lengths(model, root, tokens=max(reach, sum(map(len, rows))), reach=reach)
    except Unsupported as error:
        warn_of_fallback(model, f"{error} cannot be shared", stacklevel=3)
        return False
    return True


def _trunk(
    base: PreTrainedModel, rows: list[list[int]], before: int, root: KeysValues | None
) -> tuple[int, KeysValues | None]:
    """Length of what all prompts start with, each keeping a token of its own; its keys and values.

    Args:
        before, root: number, keys and values of virtual tokens, which come first in the result.
    """
    ordered = sorted(rows)
    length = min(common_prefix(ordered[0], ordered[-1]), min(map(len, rows)) - 1)
    if len(rows) == 1 or length < MIN_TRUNK:
        return 0, root
    layout = lay_out([rows[0][:length]], trunk=root, trunk_length=before)
    layout.kept = {}
    _hidden(base, layout)
    return length, layout.kept if root is None else join_trunks(root, layout.kept)


def _hidden(base: PreTrainedModel, layout: Layout) -> torch.Tensor:
    """Hidden states `[T, D]` of a layout's nodes."""
    device = device_of(base)
    with attending_by_forest(base):
        output = base.get_decoder()(
            input_ids=torch.from_numpy(layout.tokens)[None].to(device),
            position_ids=torch.from_numpy(layout.positions)[None].to(device),
            use_cache=False,
            forest=layout,
        )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden


class _Writing:
    """A batch of rows being continued."""

    def __init__(
        self,
        base: PreTrainedModel,
        head: Head,
        texts: list[list[int]],
        trunk: KeysValues | None,
        trunk_length: int,
        max_new_tokens: int,
    ) -> None:
        self.base = base
        self.head = head
        self.device = device_of(base)
        self.max_new_tokens = max_new_tokens
        room = max(map(len, texts)) + max_new_tokens
        self.rows = Rows(trunk, trunk_length, len(texts), room)
        self.last = self._read_prompts(texts, trunk, trunk_length)

    def _read_prompts(
        self, texts: list[list[int]], trunk: KeysValues | None, trunk_length: int
    ) -> torch.Tensor:
        """Fill the rows; returns the hidden states `[B, D]` of their last tokens."""
        last: list[torch.Tensor] = [torch.empty(0)] * len(texts)
        for group in pack(texts, PREFILL_TOKENS):
            layout = lay_out([texts[i] for i in group], trunk=trunk, trunk_length=trunk_length)
            layout.kept = {}
            hidden = _hidden(self.base, layout)
            for i, nodes in zip(group, layout.paths, strict=True):
                self.rows.fill(i, layout, torch.from_numpy(nodes).to(self.device))
                last[i] = hidden[nodes[-1]]
        return torch.stack(last)

    def run(
        self,
        stop_ids: frozenset[int],
        temperature: float,
        sampler: torch.Generator,
        constraint: Constraint | None,
        advance: Callable[[int], None],
    ) -> Iterator[tuple[list[int], float, int | None]]:
        """Write until every row has stopped; yields tokens, log-probability and the stop token, if any."""
        count = len(self.last)
        written: list[list[int]] = [[] for _ in range(count)]
        logprobs = [0.0] * count
        ended: list[int | None] = [None] * count
        alive = list(range(count))
        walks = None if constraint is None else [constraint.walk() for _ in range(count)]
        stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=self.device)
        hidden = self.last
        for step in range(self.max_new_tokens):
            if step:
                hidden = self._step(torch.tensor([written[row][-1] for row in alive], device=self.device))
            logits = self.head.logits(hidden).float()
            if walks is not None:
                forbid_others(logits, [walks[row] for row in alive])
            tokens = _choose(logits, temperature, sampler)
            chosen = logits.gather(1, tokens[:, None])[:, 0]
            whole = torch.logsumexp(logits, dim=-1)
            gained = (chosen - whole).tolist()
            ending = (torch.logsumexp(logits[:, stops], dim=-1) - whole).tolist()
            keep = []
            for place, (row, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
                logprobs[row] += ending[place] if token in stop_ids else gained[place]
                if token in stop_ids:
                    ended[row] = token
                    advance(1)
                else:
                    written[row].append(token)
                    keep.append(place)
                    if walks is not None:
                        walks[row].take(token)
            if len(keep) < len(alive):
                alive = [alive[place] for place in keep]
                if alive:
                    self.rows.keep(keep)
            if not alive:
                break
        advance(len(alive))
        yield from zip(written, logprobs, ended, strict=True)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Hidden states `[B, D]` of one more token per row."""
        with attending_by_forest(self.base, DECODING):
            output = self.base.get_decoder()(
                input_ids=tokens[:, None],
                position_ids=self.rows.positions[:, None].to(self.device),
                use_cache=False,
                decoding=self.rows,
            )
        self.rows.advance()
        hidden: torch.Tensor = output.last_hidden_state[:, 0]
        return hidden


def _choose(logits: torch.Tensor, temperature: float, sampler: torch.Generator) -> torch.Tensor:
    """Next tokens `[B]` from logits `[B, V]`."""
    if temperature <= 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits.cpu() / temperature, dim=-1)
    return torch.multinomial(weights, 1, generator=sampler)[:, 0].to(logits.device)


class _Guide(LogitsProcessor):
    """A constraint in Transformers' own generation of one row; keeps the log-probabilities of each step."""

    def __init__(self, walk: Walk, prompt_length: int) -> None:
        self._walk = walk
        self._read = prompt_length
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for token in input_ids[0, self._read :].tolist():
            self._walk.take(token)
        self._read = input_ids.shape[1]
        allowed = scores.float().clone()
        forbid_others(allowed, [self._walk])
        self._steps.append(torch.log_softmax(allowed[0], dim=-1))
        return cast(torch.FloatTensor, allowed)

    def logprob(self, written: Sequence[int], stops: Sequence[int]) -> float:
        """Of the tokens written, each among those that were allowed; of the end, by any of `stops`."""
        return float(
            sum(
                float(step[list(stops) if token in stops else [token]].logsumexp(0))
                for step, token in zip(self._steps, written, strict=True)
            )
        )


def _row_by_row(
    model: Model,
    prompt: list[int],
    max_new_tokens: int,
    stop_ids: frozenset[int],
    temperature: float,
    seed: int,
    constraint: Constraint | None,
) -> Generated:
    """Transformers' own generation, for architectures whose state is not keys and values."""
    base = causal_lm(model)
    started = time.perf_counter()
    ids = torch.tensor([prompt], device=device_of(base))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported")  # PEFT counts by itself
        torch.manual_seed(seed)
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {}
        whole: Any = model if has_root(model) else base
        guide = None if constraint is None else _Guide(constraint.walk(), len(prompt))
        output = whole.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(stop_ids),
            pad_token_id=min(stop_ids, default=0),
            logits_processor=None if guide is None else LogitsProcessorList([guide]),
            **({"do_sample": False} | sampling),
        )
    written = output[0, len(prompt) :].tolist()
    ended = bool(written) and written[-1] in stop_ids
    logprob = (
        _own_logprob(model, prompt, written, sorted(stop_ids) if ended else [])
        if guide is None
        else guide.logprob(written, sorted(stop_ids))
    )
    return Generated(
        tuple(written[:-1] if ended else written),
        logprob,
        written[-1] if ended else None,
        time.perf_counter() - started,
    )


def _own_logprob(model: Model, prompt: list[int], written: list[int], stops: Sequence[int]) -> float:
    """Of the tokens written; where they ended, of ending there by any of `stops`."""
    if not stops:
        (values,) = score(model, [[*prompt, *written]])
        return float(values[len(prompt) - 1 :].sum())
    ends = score(model, [[*prompt, *written[:-1], stop] for stop in stops])
    before = float(ends[0][len(prompt) - 1 : -1].sum())
    return before + float(torch.stack([values[-1] for values in ends]).logsumexp(0))
