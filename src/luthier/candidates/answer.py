"""Ask a model: conversations in, answers with their cost and confidence out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from luthier.chat import ChatFormat
from luthier.constrain import Constraint
from luthier.forest.logprobs import Model
from luthier.generate import generate

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """One candidate's answer to one example, before grading.

    Attributes:
        prompt: the text the model was given, template included; None where there is no prompt.
        confidence: the probability the candidate gave its whole answer, in [0, 1]. Under a constraint it is
            the constrained writer's: of labels, say, the probability among the labels, as with `scratch`,
            so that candidates can be compared. What the model would rather have written plays no part.
        seconds: compute time of this request at the batch size used.
    """

    id: str
    prompt: str | None
    answer: str
    confidence: float | None
    prompt_tokens: int | None
    answer_tokens: int | None
    seconds: float

    def as_row(self) -> dict[str, Any]:
        """The answer as a line of JSON."""
        return asdict(self)


def ask(
    model: Model,
    chat: ChatFormat,
    conversations: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    max_new_tokens: int,
    constraint: Constraint | None = None,
    advance: Callable[[int], None] = lambda finished: None,
) -> list[Answer]:
    """Greedy answers to conversations that end with the user's turn, keyed by example id.

    Args:
        constraint: what every answer must be; one that needs more room than `max_new_tokens` gets it.
    """
    prompts = {key: chat.prompt(messages) for key, messages in conversations.items()}
    generated = generate(
        model,
        list(prompts.values()),
        max_new_tokens=max(max_new_tokens, 0 if constraint is None else constraint.room),
        stop_ids=chat.stop_ids,
        constraint=constraint,
        advance=advance,
    )
    return [
        Answer(
            id=key,
            prompt=chat.render(conversations[key], generation=True),
            answer=chat.answer(result.ids, conversations[key]),
            confidence=math.exp(min(0.0, result.logprob)),
            prompt_tokens=len(prompts[key]),
            answer_tokens=len(result.ids),
            seconds=result.seconds,
        )
        for key, result in zip(prompts, generated, strict=True)
    ]


def sample(
    model: Model,
    chat: ChatFormat,
    conversations: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    count: int,
    temperature: float,
    seed: int,
    max_new_tokens: int,
    constraint: Constraint | None = None,
    advance: Callable[[int], None] = lambda finished: None,
) -> dict[str, list[str]]:
    """`count` independent answers to each conversation, by example id; their prompts are computed once.

    Args:
        temperature: above 0.
        seed: of the sampling; the same seed on the same machine gives the same answers.
        advance: called with the number of answers finished.
    """
    prompts = [prompt for messages in conversations.values() for prompt in [chat.prompt(messages)] * count]
    generated = generate(
        model,
        prompts,
        max_new_tokens=max(max_new_tokens, 0 if constraint is None else constraint.room),
        stop_ids=chat.stop_ids,
        temperature=temperature,
        seed=seed,
        constraint=constraint,
        advance=advance,
    )
    asked = [messages for messages in conversations.values() for _ in range(count)]
    texts = [chat.answer(result.ids, own) for result, own in zip(generated, asked, strict=True)]
    return {key: texts[i * count : (i + 1) * count] for i, key in enumerate(conversations)}
