"""Texts instead of requests: how likely each candidate finds them, in the place of its answers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from luthier.errors import DataError
from luthier.examples import Example, Split
from luthier.pipeline.models import Models
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.recipe.method_options import method_name


def refuse_other_kind(recipe: Recipe, split: Split) -> None:
    """Refuse texts where answers are learnt, and conversations where texts are.

    Raises:
        DataError: the first example of the other kind.
    """
    kind = method_name(recipe.method)
    unwanted = (example for side in split.unwanted.values() for example in side)
    for example in (*(e for side in split.sides().values() for e in side), *unwanted):
        if recipe.reads_texts and example.request:
            fix = 'use `method: sft`, or write rows with only "text", or a .txt or .md file'
            raise DataError("this is a conversation, and cpt learns plain text", where=example.where, fix=fix)
        if not recipe.reads_texts and not example.request:
            raise DataError(
                f"this is plain text without a request, and {kind} learns answers",
                where=example.where,
                fix="use `method: cpt`; or name the columns of request and answer, such as text and label",
            )


def measure_texts(
    recipe: Recipe, models: Models, show: Show, name: str, texts: Sequence[Example]
) -> list[dict[str, Any]]:
    """The lines of `answers/NAME.jsonl`: each text with its score, the probability per token.

    The score is exp(mean log p) over the text's tokens and its end, cut into the pieces of training; `detail`
    holds their sum (`logprob`, nats) and number (`tokens`). Base and tuned read the very same tokens.
    """
    from luthier.forest import score
    from luthier.methods import build_method
    from luthier.methods.cpt import CPT

    method = build_method(recipe.method).within(text_limit(recipe, models))
    assert isinstance(method, CPT)
    model = models.tuned() if name == "tuned" else models.base().model
    pieces = [(row, piece) for row, text in enumerate(texts) for piece in method.pieces(text, models.chat)]
    started = time.perf_counter()
    with show.task(f"{name}: reading", len(pieces)) as advance:
        values = score(
            model,
            [piece.ids for _, piece in pieces],
            needed=[[weight > 0 for weight in piece.weights[1:]] for _, piece in pieces],
            advance=advance,
        )
    seconds = (time.perf_counter() - started) / max(1, len(texts))
    totals, counts = [0.0] * len(texts), [0] * len(texts)
    for (row, _), logps in zip(pieces, values, strict=True):
        totals[row] += float(logps.double().sum())
        counts[row] += len(logps)
    return [
        _row(text, total, count, seconds) for text, total, count in zip(texts, totals, counts, strict=True)
    ]


def text_limit(recipe: Recipe, models: Models) -> int | None:
    """Tokens that a piece may have: the model's context, less virtual tokens before it."""
    virtual = recipe.adapter.virtual_tokens if recipe.adapter.kind in ("prefix", "prompt") else 0
    limit = models.context_limit()
    return None if limit is None else limit - virtual


def _row(text: Example, logprob: float, tokens: int, seconds: float) -> dict[str, Any]:
    mean = logprob / tokens
    return {
        "id": text.id,
        "prompt": None,
        "answer": f"perplexity {math.exp(-mean):.4g} over {tokens} tokens",
        "confidence": None,
        "prompt_tokens": None,
        "answer_tokens": None,
        "seconds": seconds,
        "score": math.exp(min(0.0, mean)),
        "detail": {"logprob": logprob, "tokens": tokens},
    }
