"""Messages <-> tokens and loss weights: one `ChatFormat` for training, grading and serving.

Two promises, kept by construction rather than by convention: what precedes a trained answer is, id for id,
the prompt that the model is given at inference; and only the chat template writes control tokens, never a
message that spells one (see `control_tokens`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import jinja2

from luthier.control_tokens import ControlTokens
from luthier.errors import DataError, ModelError
from luthier.examples.example import Example
from luthier.examples.tool_calls import link, read_answer, renumber, write_answer, write_json
from luthier.tool_template import NAMES, ToolTemplate, lost, offered, parts_used, try_tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A closed list: templates build control tokens out of roles (Phi-4 writes '<|' + role + '|>').
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})

# For base models: system, blank line; each request, newline; each answer, end of text. Nothing else.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}{% endfor %}"
)


# Instruct models end turns with another token than the documents that they were pre-trained on.
ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "<eos>", "</s>")


@dataclass(frozen=True)
class TrainingSequence:
    """One trained answer after its prompt.

    Attributes:
        ids: T token ids: the inference prompt, then the answer with its terminator.
        weights: T loss weights; `weights[t]` belongs to predicting `ids[t]` from `ids[:t]` (no shift).
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def prompt_tokens(self) -> int:
        """How many leading tokens are the prompt."""
        return next((t for t, weight in enumerate(self.weights) if weight), len(self.weights))


class ChatFormat:
    """How one tokenizer's chat template writes conversations.

    A tokenizer without a template gets `PLAIN_TEMPLATE`, set on it so that exports carry it.

    Attributes:
        terminator: id that ends an answer: what the template writes after it, else the tokenizer's eos.
        stop_ids: ids at which generation stops: the terminator, every end-of-text id and, once a conversation
            with tools was written, what ends an answer that calls one.
        notes: what the user should know about this template, one sentence each.

    Raises:
        ModelError: the template does not run, leaves the answer out, or nothing can end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, extra_stop_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.notes: list[str] = []
        self._control = ControlTokens(tokenizer, self._find_template())
        self._parts = False
        self._merges_system = False
        self._probe_answer()
        self._probe_system()
        self.terminator = self._control.ids[self._end]
        eos = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
        self.stop_ids = frozenset({self.terminator, *eos, *extra_stop_ids})

    def render(self, messages: Sequence[Mapping[str, Any]], *, generation: bool = False) -> str:
        """The conversation as the template writes it; `generation` adds the head of an answer.

        Messages may call tools and give their results; the first one carries the tools (`Example.asked`).

        Raises:
            DataError: the template refuses the conversation, or a role is unknown.
            ModelError: the template does not show tools, calls or results, and the conversation has them.
        """
        return self._control.unmark(self._write(messages, generation))

    def encode(self, messages: Sequence[Mapping[str, Any]], *, generation: bool = False) -> list[int]:
        """The conversation as token ids; only the template's own control tokens become control ids.

        Equal to `tokenizer.apply_chat_template` for messages that spell no control token.

        Raises:
            DataError: as `render`.
        """
        return self._control.read(self._write(messages, generation))

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The ids that the model is given to answer `messages`, in training as at inference."""
        return self.encode(messages, generation=True)

    def with_system(self, messages: Sequence[Mapping[str, Any]], system: str | None) -> list[dict[str, Any]]:
        """`messages` with `system` in front, unless they carry a system message of their own."""
        has_one = any(message["role"] in ("system", "developer") for message in messages)
        head = [{"role": "system", "content": system}] if system and not has_one else []
        return head + [dict(message) for message in messages]

    def sequence(
        self, messages: Sequence[Mapping[str, Any]], answer: str | Mapping[str, Any]
    ) -> TrainingSequence:
        """`prompt(messages)` with weight 0, then `answer` and the terminator with weight 1.

        What the template writes after the terminator (ChatML's newline) is left out.

        Args:
            answer: a message, or the text of one: calls in it (`Example.answer`) are written as the template
                writes calls where `messages` carry tools.

        Raises:
            DataError: the answer is blank, nothing precedes it, or the template refuses the conversation or
                leaves a part of a call out.
            ModelError: as `render`.
        """
        if not messages:
            fix = 'give that answer "weight": 0; plain text is for `method: cpt`'
            raise DataError("the conversation starts with the answer", fix=fix)
        prompt = self._write(messages, True)
        said = self._as_message(messages, answer)
        text = self._answer_text(messages, said, prompt)
        body = text.removesuffix(self._end).removeprefix(self._opening)
        if not (said["content"].strip() or said.get("tool_calls")) or not body.strip():
            raise DataError("a blank answer has nothing to train on", fix="fill it in or remove the row")
        prompt_ids = self._control.read(prompt)
        ids = self._control.read(prompt + text)
        answer_ids = ids[len(prompt_ids) :]
        if ids[: len(prompt_ids)] != prompt_ids:  # they merged across the border: "\n" + "\n"
            answer_ids = self._control.read_on(text)
        weights = [0.0] * len(prompt_ids) + [1.0] * len(answer_ids)
        return TrainingSequence(tuple(prompt_ids + answer_ids), tuple(weights))

    def text(self, text: str) -> TrainingSequence:
        """Plain text as pre-training has it: the start of a document, the text, the end of a document.

        No template and no control token but these two. The start, of weight 0, is the tokenizer's own, or the
        end of the document before where it has none: packed pre-training shows either. The end is that of
        pre-training (`<|endoftext|>`, ...), or the tokenizer's eos.

        Raises:
            DataError: the text is blank.
        """
        if not text.strip():
            raise DataError("a blank text has nothing to train on", fix="fill it in or remove the row")
        ids = self._control.read(self._control.mark(text, answer=False))
        start = self._end_of_text if self.text_start is None else self.text_start
        return TrainingSequence((start, *ids, self._end_of_text), (0.0, *(1.0 for _ in ids), 1.0))

    @cached_property
    def text_start(self) -> int | None:
        """The id that the tokenizer puts before any text; None where it puts none."""
        begin = self.tokenizer.bos_token_id
        return None if begin is None or self.tokenizer.encode("")[:1] != [begin] else int(begin)

    @cached_property
    def _end_of_text(self) -> int:
        known = (self._control.ids[text] for text in ENDS_OF_TEXT if text in self._control.ids)
        eos = self.tokenizer.eos_token_id
        return next(known, self.terminator if eos is None else int(eos))

    def training(self, example: Example, system: str | None = None) -> list[TrainingSequence]:
        """One sequence per assistant turn of weight other than 0; they share prefixes, which cost nothing.

        Raises:
            DataError: as `sequence`, or no assistant turn is trained; names the example's `file:line`.
        """
        messages = self.with_system(example.with_tools(example.messages), system)
        extra = len(messages) - len(example.messages)
        trained = [i for i, m in enumerate(example.messages) if m.role == "assistant" and m.weight]
        try:
            if not trained:
                raise DataError("no assistant turn has a weight other than 0: there is nothing to train on")
            return [self.sequence(messages[: i + extra], messages[i + extra]) for i in trained]
        except DataError as error:
            raise DataError(error.message, where=example.where, fix=error.fix) from error

    def decode(self, ids: Sequence[int]) -> str:
        """The answer in `ids` as text: up to its end, and without what the template puts around answers."""
        length = next((t for t, i in enumerate(ids) if i in self.stop_ids), len(ids))
        answer = list(ids[:length])
        shown = self.tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        text = str(shown).removeprefix(self._control.drop_special(self._opening))
        return text.removesuffix(self._closing) if length < len(ids) else text

    def answer(self, ids: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> str:
        """The answer to `messages` in `ids`, as `Example.answer` tells answers.

        As `decode`, but where the messages carry tools and the model called some, the calls as JSON.
        """
        text, tools = self.decode(ids), offered(messages)
        if tools is None:
            return text
        length = next((t for t, i in enumerate(ids) if i in self.stop_ids), len(ids))
        shown = self.tokenizer.decode(list(ids[:length]), clean_up_tokenization_spaces=False)
        before, calls = self._tools.read(str(shown), tools)
        if not calls:
            return text
        usual = self._control.drop_special(self._opening).strip()
        content = self._control.drop_special(before).strip().removeprefix(usual)
        return write_answer(content.strip(), calls)

    def show_mask(self, sequence: TrainingSequence) -> list[tuple[str, bool]]:
        """The sequence as runs of (text, whether it is trained), decoded from the very ids the loss sees."""
        pairs = zip(sequence.ids, sequence.weights, strict=True)
        return [
            (str(self.tokenizer.decode([i for i, _ in run], clean_up_tokenization_spaces=False)), trained)
            for trained, run in groupby(pairs, key=lambda pair: pair[1] > 0)
        ]

    def _find_template(self) -> str:
        if self.tokenizer.chat_template is None:
            # Base models that were trained behind a BOS get it here, since the template is the only writer.
            begins = self.tokenizer.encode("")[:1] == [self.tokenizer.bos_token_id]
            self.tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + PLAIN_TEMPLATE
            self.notes.append("The model has no chat template; a plain one was set for it.")
        try:
            template = str(self.tokenizer.get_chat_template())
        except ValueError as error:
            raise ModelError(f"the tokenizer has no default chat template: {error}") from error
        if "strftime_now" in template:
            self.notes.append("The chat template writes today's date into the prompt.")
        return template

    def _probe_answer(self) -> None:
        """Learn from a sentinel what the template writes before, after and at the end of an answer."""
        answer = f"a{self._control.nonce}"
        full, prompt = self._try_out(answer)
        before, _, after = full.rpartition(answer)
        found = self._control.find(after)
        self._end = found[0] if found else (self.tokenizer.eos_token or "")
        if self._end not in self._control.ids:
            raise ModelError("nothing marks the end of an answer", fix="set the tokenizer's eos_token")
        self._control.forbid(self._end)
        self._closing, self._tail = (after[: found.start()], "") if found else ("", after)
        # R1 opens a new answer with "<think>\n", which finished answers lack: the prompt stays as it is.
        same = len(commonprefix([before, prompt]))  # noqa: RUF071 characters are what is compared
        self._opening, self._opened = before[same:], prompt[same:]
        if self._opened:
            self.notes.append(f"The template opens only new answers with {self._opened!r}; so does training.")

    def _try_out(self, answer: str) -> tuple[str, str]:
        asked = [{"role": "user", "content": "q"}]
        problem = "it leaves out the answer"
        for self._parts in (False, True):  # vision templates refuse or drop strings and take lists of parts
            try:
                full = self._write([*asked, {"role": "assistant", "content": answer}], False)
                if answer in full:
                    return full, self._write(asked, True)
            except DataError as error:
                problem = error.message
        raise ModelError(f"the chat template cannot write a question and its answer: {problem}")

    def _probe_system(self) -> None:
        system = f"s{self._control.nonce}"
        asked = [{"role": "system", "content": system}, {"role": "user", "content": "q"}]
        try:
            self._merges_system = system not in self._write(asked, True)
        except DataError:
            self._merges_system = True
        if self._merges_system:
            self.notes.append("The chat template has no system role: it heads the first user message.")

    def _as_message(
        self, messages: Sequence[Mapping[str, Any]], answer: str | Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if not isinstance(answer, str):
            return {key: value for key, value in answer.items() if key != "tools"}
        content, calls = (answer, ()) if offered(messages) is None else read_answer(answer)
        said = {"role": "assistant", "content": content}
        return {**said, "tool_calls": [call.as_dict() for call in calls]} if calls else said

    def _calls_text(self, full: str, message: Mapping[str, Any], prompt: str) -> str:
        """As `_answer_text`, of an answer that calls tools."""
        start = prompt if full.startswith(prompt) else prompt.removesuffix(self._opened)
        if not full.startswith(start):
            raise DataError("the chat template writes earlier turns otherwise once tools are called")
        end = self._tools.end or self._end
        text = full[len(start) :].removesuffix(self._tail).partition(end)[0] + end
        said = {
            "content": self._control.mark(message["content"], answer=True),
            "tool_calls": self._control.mark_all(message["tool_calls"]),
        }
        if what := lost(said, text):
            fix = "write the answer as this model writes it, or leave the example out"
            raise DataError(f"the chat template leaves out {what}", fix=fix)
        return text

    def _answer_text(
        self, messages: Sequence[Mapping[str, Any]], message: Mapping[str, Any], prompt: str
    ) -> str:
        """What follows `prompt`, up to and including the terminator, in marked text."""
        full = self._write([*messages, message], False)
        if message.get("tool_calls"):
            return self._calls_text(full, message, prompt)
        if full.startswith(prompt):
            text = full[len(prompt) :].removesuffix(self._tail)
        else:
            body = self._control.mark(message["content"], answer=True)
            body = body if self._opening else body.removeprefix(self._opened)
            text = self._opening + body + self._closing
        return text.partition(self._end)[0] + self._end

    @cached_property
    def _tools(self) -> ToolTemplate:
        usual = (self._opening, self._opened, self._end)
        found = try_tools(self._fill_in, self._control, usual)
        if found.end is not None:
            self._control.forbid(found.end)
            self.stop_ids |= {self._control.ids[found.end]}
        if "calls" in found.shows and found.way is None:
            self.notes.append(
                "Calls that this template writes cannot be read back: answers are graded as text."
            )
        return found

    def _write(self, messages: Sequence[Mapping[str, Any]], generation: bool) -> str:
        """The template's text, in which marks stand for the control strings that messages spell."""
        used = parts_used(messages)
        if missing := [NAMES[part] for part in NAMES if part in used and part not in self._tools.shows]:
            name = self.tokenizer.name_or_path or "the model"
            raise ModelError(
                f"the chat template of {name} does not show {' and '.join(missing)}",
                fix="choose a model whose template writes them, or leave these examples out",
            )
        return self._fill_in(messages, generation, bool(used) and self._tools.arguments_as_text)

    def _fill_in(self, messages: Sequence[Mapping[str, Any]], generation: bool, as_text: bool) -> str:
        turns = []
        for message in link(self._seat_system(messages)):
            role = message["role"]
            if role not in ROLES:
                raise DataError(f"unknown role {role!r}", fix=f"use one of {', '.join(sorted(ROLES))}")
            turn: dict[str, Any] = {
                key: value if key == "role" else self._control.mark(value, answer=role == "assistant")
                for key, value in message.items()
                if key not in ("tools", "tool_calls")
            }
            if self._parts:
                turn["content"] = [{"type": "text", "text": turn["content"]}]
            if message.get("tool_calls"):
                turn["tool_calls"] = [self._call(call, as_text) for call in message["tool_calls"]]
            turns.append(turn)
        if not turns:
            raise DataError("an empty conversation", fix="give it at least one user message")
        tools = self._control.mark_all(offered(messages)) or None
        try:
            return self._apply(turns, tools, generation)
        except DataError:
            short = renumber(turns)  # Mistral's templates take ids of nine characters and no other
            if short == turns:
                raise
            return self._apply(short, tools, generation)

    def _call(self, call: Mapping[str, Any], as_text: bool) -> dict[str, Any]:
        marked: dict[str, Any] = self._control.mark_all(call)
        if as_text:
            function = marked["function"]
            marked["function"] = function | {"arguments": write_json(function["arguments"])}
        return marked

    def _apply(self, turns: list[dict[str, Any]], tools: Any, generation: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tools=tools, tokenize=False, add_generation_prompt=generation
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise DataError(f"the model's chat template refuses this conversation: {error}") from error
        return str(text)

    def _seat_system(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        if not self._merges_system or not messages or messages[0]["role"] != "system":
            return list(messages)
        system, *rest = messages
        if not rest or rest[0]["role"] != "user":
            return [{**system, "role": "user"}, *rest]
        return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
