"""W2: every sequence of a batch starts with the same prompt, as it does when one task is trained.

The demo's support tickets, with the model's own chat template: W2a behind a short system prompt, W2b
behind that and answered examples as earlier turns. Four fields of the answers are kept, so that lengths
are as announced, and stay so when the demo asks for more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.peers import TrlSettings
from bench.plan import Row, nearest_length
from bench.workload import Example, Goal, TrainingWorkload
from luthier.demo import DATA
from luthier.examples.read import read_examples

if TYPE_CHECKING:
    from luthier.chat import ChatFormat
    from luthier.examples.example import Example as Ticket

FIELDS = ("category", "urgency", "product", "order")
SYSTEM = (
    "You triage support mail of a shop for home goods. Reply with one line of JSON: category, urgency, "
    "product or null, order (five digits) or null."
)
W2A_LENGTH = 105
W2B_SHARED, W2B_LENGTH = 350, 410

Messages = list[dict[str, str]]


def system_prompt_examples(chat: ChatFormat, count: int) -> list[Example]:
    """W2a: the system prompt, one ticket, its answer."""
    head: Messages = [{"role": "system", "content": SYSTEM}]
    return [(row,) for row in nearest_length(_rows(chat, head, _tickets()), W2A_LENGTH, count)]


def few_shot_examples(chat: ChatFormat, count: int) -> list[Example]:
    """W2b: the system prompt, answered tickets as long as there is room, one ticket, its answer."""
    head, tickets = _few_shot(chat)
    return [(row,) for row in nearest_length(_rows(chat, head, tickets), W2B_LENGTH, count)]


def few_shot_prompts(chat: ChatFormat, count: int) -> list[Sequence[int]]:
    """W2b's prompts without the answers, as many as asked for, in the order of the file."""
    head, tickets = _few_shot(chat)
    return [chat.prompt([*head, {"role": "user", "content": ticket.input}]) for ticket in tickets[:count]]


def _few_shot(chat: ChatFormat) -> tuple[Messages, list[Ticket]]:
    """The shared turns, and the tickets that are not among them.

    The last of the answered tickets is the one that brings the prompt nearest to its length.
    """
    tickets = _tickets()
    head: Messages = [{"role": "system", "content": SYSTEM}]
    while len(chat.encode(_shown(head, tickets[0]))) <= W2B_SHARED:
        head = _shown(head, tickets.pop(0))
    head = head[:-2]
    last = min(tickets, key=lambda ticket: abs(len(chat.encode(_shown(head, ticket))) - W2B_SHARED))
    tickets.remove(last)
    return _shown(head, last), tickets


def _shown(head: Messages, ticket: Ticket) -> Messages:
    answered = {"role": "assistant", "content": _answer(ticket)}
    return [*head, {"role": "user", "content": ticket.input}, answered]


def _tickets() -> list[Ticket]:
    return list(read_examples(DATA).examples)


def _rows(chat: ChatFormat, head: Messages, tickets: list[Ticket]) -> list[Row]:
    sequences = [
        chat.sequence([*head, {"role": "user", "content": ticket.input}], _answer(ticket))
        for ticket in tickets
    ]
    return [Row(sequence.ids, sequence.weights) for sequence in sequences]


def _answer(ticket: Ticket) -> str:
    fields = json.loads(ticket.answer)
    return json.dumps({name: fields[name] for name in FIELDS}, ensure_ascii=False)


WORKLOADS = (
    TrainingWorkload(
        "w2a",
        "SFT behind a system prompt: about 45 of about 105 tokens are shared",
        Goal(speed=3.5),
        "sft",
        8,
        system_prompt_examples,
        (TrlSettings(8), TrlSettings(4), TrlSettings(2), TrlSettings(1), TrlSettings(8, "free")),
    ),
    TrainingWorkload(
        "w2b",
        "SFT behind a few-shot prompt: about 350 of about 410 tokens are shared",
        Goal(speed=8.0, memory=0.3),
        "sft",
        8,
        few_shot_examples,
        (TrlSettings(4), TrlSettings(2), TrlSettings(1)),
    ),
)
