"""Asking for drafts: answers to requests of the user's, or to new requests like those of the examples.

Every reply is kept in a journal when it comes: what was paid for is never asked again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from luthier.collect.asking import Teacher, read_input
from luthier.collect.edits import PROMPTS, read_request
from luthier.collect.likeness import asked_text, find_known
from luthier.collect.log_turns import Turn
from luthier.collect.tally import NotTakenError, Tally
from luthier.errors import DataError, ModelError
from luthier.examples.row import Problem
from luthier.examples.rows import read_rows
from luthier.grade.chat_endpoint import ChatEndpoint, Reply
from luthier.progress import Show
from luthier.ranking.journal import append_line
from luthier.recipe import digest
from luthier.recipe.grader_options import Endpoint

AT_ONCE = 4  # requests under way at a time
ROUND = 16  # new requests that are thought of before they are compared
TRIES_PER_DRAFT = 3  # new requests that are thought of, for each draft that is wanted
_LIKE = "like-"
Key = TypeVar("Key")


@dataclass(frozen=True)
class Asked:
    """A request without an answer: where it was read, and its place among the drafts."""

    request: list[Turn]
    where: str
    place: int


@dataclass
class Work:
    """A drafting under way.

    Attributes:
        endpoint: where the model is.
        teacher: the examples as prompts.
        known: what the examples ask, normalised.
        journal: where replies are kept.
        lines: what is kept, by the key of the request.
        tally: requests that were not asked.
    """

    endpoint: Endpoint
    teacher: Teacher
    known: Sequence[str]
    journal: Path
    show: Show
    lines: dict[str, dict[str, Any]]
    tally: Tally = field(default_factory=Tally)

    def keep(self, key: str, asked: Asked, told: Mapping[str, Any], *paid: Reply) -> None:
        """Write down what came of a request: `answer` or `left_out`."""
        line = {
            "key": key,
            "place": asked.place,
            "where": asked.where,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "prompt_tokens": sum(reply.prompt_tokens for reply in paid),
            "answer_tokens": sum(reply.answer_tokens for reply in paid),
            **({"asked": asked.request} if asked.request else {}),
            **told,
        }
        append_line(self.journal, line)
        self.lines[key] = line

    def model(self, *, temperature: float) -> ChatEndpoint:
        """The model as it is asked."""
        return ChatEndpoint(
            self.endpoint, who=self.endpoint.model, key_from="--key-env", temperature=temperature
        )


def answer_prompts(work: Work, file: Path) -> None:
    """Drafts for the requests in a file that were not asked before.

    Raises:
        DataError: the file cannot be read, or has no column of requests.
        ModelError: the model cannot be reached.
    """
    asked = list(_read_prompts(file, work))
    before = find_known(work.known, [asked_text(one.request) for one in asked])
    todo = {}
    for position, one in enumerate(asked):
        key = digest(one.request)[:16]
        if position in before:
            work.tally.read += 1
            work.tally.leave_out(before[position], one.where)
        elif key not in work.lines:
            todo[key] = one
    _ask_answers(work, todo)


def think_of_more(work: Work, wanted: int) -> None:
    """Drafts for new requests, in rounds: thought of, compared with all there are, and answered.

    Raises:
        ModelError: the model cannot be reached.
    """
    for round_ in itertools.count(1):
        missing = wanted - sum("answer" in line for line in work.lines.values())
        numbers = [n for n in range(TRIES_PER_DRAFT * wanted) if f"{_LIKE}{n}" not in work.lines]
        if missing <= 0:
            return
        if not numbers:
            work.show.note(f"{missing} drafts fewer than wanted: the model repeats itself, or was of no use")
            return
        asked = {n: work.teacher.ask_input(f"{_LIKE}{n}") for n in numbers[: min(missing, ROUND)]}
        replies: dict[int, Reply] = {}
        what = f"thinking of requests, round {round_}"
        _ask_all(work, asked, replies.__setitem__, what, temperature=1)
        todo = _compare(work, replies)
        _ask_answers(work, todo, {f"{_LIKE}{n}": reply for n, reply in replies.items()})


def _read_prompts(file: Path, work: Work) -> Iterator[Asked]:
    for place, row in enumerate(read_rows(file)):
        if isinstance(row, Problem):
            raise DataError(row.message, where=row.where, fix=row.fix)
        where = f"{file}:{row.line}"
        lowered = {name.lower(): value for name, value in row.values.items()}
        column = next((name for name in (*PROMPTS, "text") if lowered.get(name)), None)
        if column is None:
            found = ", ".join(row.values) or "nothing"
            raise DataError(f"no prompt (found {found})", where=where, fix='write {"prompt": "…"}')
        try:
            yield Asked(work.teacher.complete(read_request(lowered[column])), where, place)
        except NotTakenError as reason:
            work.tally.read += 1
            work.tally.leave_out(str(reason), where)


def _compare(work: Work, replies: Mapping[int, Reply]) -> dict[str, Asked]:
    """The requests that are new; the others are kept as left out."""
    found: dict[int, Asked] = {}
    for number in sorted(replies):
        where = f"new request {number + 1}"
        try:
            text = _text_of(replies[number])
            request = work.teacher.complete([{"role": "user", "content": read_input(text)}])
            found[number] = Asked(request, where, number)
        except NotTakenError as reason:
            told = {"left_out": str(reason)}
            work.keep(f"{_LIKE}{number}", Asked([], where, number), told, replies[number])
    asked = [*work.known, *(asked_text(line["asked"]) for line in work.lines.values() if "asked" in line)]
    before = find_known(asked, [asked_text(one.request) for one in found.values()])
    fresh = {}
    for position, (number, one) in enumerate(found.items()):
        if position in before:
            work.keep(f"{_LIKE}{number}", one, {"left_out": before[position]}, replies[number])
        else:
            fresh[f"{_LIKE}{number}"] = one
    return fresh


def _ask_answers(work: Work, todo: Mapping[str, Asked], spent: Mapping[str, Reply] | None = None) -> None:
    """Ask for answers; each is kept when it comes.

    Args:
        spent: replies that the requests themselves cost, by key.
    """
    prompts = {key: work.teacher.ask_answer(one.request, key) for key, one in todo.items()}

    def keep(key: str, reply: Reply) -> None:
        try:
            answer = work.teacher.check_answer(_text_of(reply))
            told = {"answer": answer, "prompt_sha256": digest(prompts[key])}
        except NotTakenError as reason:
            told = {"left_out": str(reason)}
        work.keep(key, todo[key], told, reply, *([spent[key]] if spent else ()))

    _ask_all(work, prompts, keep, "drafting answers", temperature=0)


def _ask_all(
    work: Work,
    prompts: Mapping[Key, Sequence[Turn]],
    keep: Callable[[Key, Reply], None],
    what: str,
    *,
    temperature: float,
) -> None:
    """Ask, and hand over each reply when it comes.

    Raises:
        ModelError: the model was not reached for some; the others were handed over.
    """
    if not prompts:
        return
    model = work.model(temperature=temperature)
    problem = None
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        with work.show.task(what, len(prompts)) as advance:
            futures = {pool.submit(model.ask, list(messages)): key for key, messages in prompts.items()}
            for future in as_completed(futures):
                reply = future.result()
                if reply.unreached:
                    problem = problem or reply.problem
                else:
                    keep(futures[future], reply)
                advance(1)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if problem:
        raise ModelError(problem, fix="see to it; the same command goes on, and nothing is paid for twice")


def _text_of(reply: Reply) -> str:
    if reply.finish == "content_filter":
        raise NotTakenError("stopped by a content filter")
    if reply.text is None:
        raise NotTakenError(reply.problem or "no answer")
    return reply.text
