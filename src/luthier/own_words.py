"""What a base model answers to everyday requests when left to itself: for replay, and to see drift on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.chat import ChatFormat
from luthier.forest.logprobs import Model
from luthier.generate import generate
from luthier.models.kept import kept
from luthier.progress import Advance

VERSION = 1  # raise it when the same inputs would give other words


def own_answers(
    model: Model,
    chat: ChatFormat,
    identity: str,
    requests: Sequence[str],
    *,
    max_new_tokens: int,
    seed: int,
    advance: Advance,
) -> list[dict[str, Any]]:
    """Answers sampled at temperature 1, written once per model and kept.

    Returns:
        Per answer that is not empty: `prompt` and `ids` (token ids, without the terminator), `finished`
        (whether the model ended it), and `text`.
    """
    prompts = [chat.prompt([{"role": "user", "content": request}]) for request in requests]

    def write() -> list[dict[str, Any]]:
        written = generate(
            model,
            prompts,
            max_new_tokens=max_new_tokens,
            stop_ids=chat.stop_ids,
            temperature=1.0,
            seed=seed,
            advance=advance,
        )
        return [
            {
                "prompt": prompt,
                "ids": list(answer.ids),
                "finished": answer.finished,
                "text": chat.decode(answer.ids),
            }
            for prompt, answer in zip(prompts, written, strict=True)
            if answer.ids
        ]

    inputs = {
        "model": identity,
        "prompts": prompts,
        "tokens": max_new_tokens,
        "seed": seed,
        "version": VERSION,
    }
    answers: list[dict[str, Any]] = kept("own-words", inputs, write)
    return answers
