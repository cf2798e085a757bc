"""What a stronger model is asked: to answer as the examples do, and to think of new requests like theirs."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from luthier.collect.log_outcome import is_stock_refusal
from luthier.collect.log_turns import Turn
from luthier.collect.tally import NotTakenError
from luthier.errors import DataError
from luthier.examples.answers import AnswerKind, kind_of_answers, parse_structure
from luthier.examples.example import Example
from luthier.examples.wording import normalise, own_system

INPUTS_SHOWN = 6
_INVENT = (
    "You write new inputs for a data set. Each is what a user might really send. "
    "Answer with the new input alone: no number, no quotes, no remark."
)
_FENCE = re.compile(r"\s*```[a-z]*\n(?P<inside>.*?)\n?```\s*", re.DOTALL)


@dataclass(frozen=True)
class Teacher:
    """Examples as prompts for the model that writes drafts.

    Attributes:
        examples: those with a request, an answer to give, and no calls of tools.
        shots: how many examples are shown before a request.
        seed: of which ones.
        system: told to the model in place of the examples' own system prompt; not kept in drafts.
    """

    examples: Sequence[Example]
    shots: int
    seed: int
    system: str | None = None

    @classmethod
    def of(cls, examples: Sequence[Example], shots: int, seed: int, system: str | None) -> Teacher:
        """A teacher from examples of any kind.

        Raises:
            DataError: none of them can be shown.
        """
        fit = [e for e in examples if e.request and e.wanted and not any(m.tool_calls for m in e.messages)]
        if not fit:
            raise DataError(
                "none of the examples is a request in words with an answer in words",
                where=examples[0].file,
                fix="give some in --from: they are shown to the model",
            )
        return cls(fit, shots, seed, system)

    @cached_property
    def own_system(self) -> str | None:
        """The system prompt that most of the examples carry, if any."""
        counts = Counter(map(own_system, self.examples))
        return counts.most_common(1)[0][0]

    @cached_property
    def kind(self) -> AnswerKind:
        """What the examples' answers are."""
        return kind_of_answers(self.examples)

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The examples' answers by their wording, where these are labels."""
        return {normalise(e.answer): e.answer for e in self.examples} if self.kind == "label" else {}

    def complete(self, request: Sequence[Turn]) -> list[Turn]:
        """The request with the examples' system prompt before it, unless it has one."""
        if self.own_system is None or any(turn["role"] == "system" for turn in request):
            return list(request)
        return [{"role": "system", "content": self.own_system}, *request]

    def ask_answer(self, request: Sequence[Turn], key: str) -> list[Turn]:
        """The messages that ask for an answer: system prompt, examples, request."""
        own = next((turn["content"] for turn in request if turn["role"] == "system"), None)
        system = self.system or own
        shown = self._draw(self.shots, key)
        return [
            *([{"role": "system", "content": system}] if system else []),
            *(_as_turn(m.role, m.content) for e in shown for m in e.messages if m.role != "system"),
            *(_as_turn(turn["role"], turn["content"]) for turn in request if turn["role"] != "system"),
        ]

    def ask_input(self, key: str) -> list[Turn]:
        """The messages that ask for a new request like those of the examples."""
        shown = [example.input for example in self._draw(INPUTS_SHOWN, key)]
        listed = "\n\n".join(f"<input>\n{text}\n</input>" for text in shown)
        task = (
            "Write one new input of the same kind: about something else, in the language, style and length "
            "of these, as different from each of them as they are from one another."
        )
        return [_as_turn("system", _INVENT), _as_turn("user", f"{listed}\n\n{task}")]

    def check_answer(self, text: str) -> str:
        """The answer as the examples would spell it.

        Raises:
            NotTakenError: it is a refusal, or of another kind than the examples' answers.
        """
        text = text.strip()
        if is_stock_refusal(text):
            raise NotTakenError("the model refused")
        if self.kind == "json":
            fenced = _FENCE.fullmatch(text)
            text = fenced["inside"] if fenced else text
            if parse_structure(text) is None:
                raise NotTakenError("the answer is no JSON, as those of the examples are")
        if self.kind == "label":
            if normalise(text) not in self.labels:
                raise NotTakenError(f"the answer is none of the examples' {len(self.labels)} labels")
            text = self.labels[normalise(text)]
        return text

    def _draw(self, count: int, key: str) -> list[Example]:
        dice = random.Random(f"{self.seed} {key}")
        return dice.sample(list(self.examples), min(count, len(self.examples)))


def read_input(text: str) -> str:
    """The new request in a model's answer, without what it may have put around it.

    Raises:
        NotTakenError: nothing is left.
    """
    found = re.search(r"<input>\s*(.*?)\s*</input>", text, re.DOTALL)
    own = (found[1] if found else text).strip()
    if len(own) > 1 and own[0] == own[-1] == '"':
        try:
            own = str(json.loads(own))
        except ValueError:
            own = own[1:-1]
    if not own or is_stock_refusal(own):
        raise NotTakenError("the model thought of no new request")
    return own


def _as_turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}
