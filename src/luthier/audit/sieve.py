"""A second process that tells which examples may have a finding of their own, while the first one reads on.

It finds nothing itself: the checks run on the examples that it names, so the findings are those of one
process, and where it dies they run on all. Texts and positions go through a pipe, as JSON and bits.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

from luthier.audit.checks import CHECKS, OF_ONE_EXAMPLE, Check
from luthier.audit.finding import Material
from luthier.audit.refusal import find_refusing_answers
from luthier.audit.unfinished_answer import find_open_answers
from luthier.examples.example import Example, Message

OF_ONE: dict[str, Check] = {  # checks of single examples by their texts, and such parts of checks
    **{name: CHECKS[name] for name in OF_ONE_EXAMPLE if name != "truncation"},
    "unfinished_answer": find_open_answers,
    "refusal": find_refusing_answers,
}
PATIENCE_SECONDS = 5.0
Said = Sequence[
    Any
]  # texts of an example `list[str]`, how many are its messages `int`, its tools `list[dict]`


class Sieve:
    """The second process; a context that ends it, whatever happens.

    Args:
        special_tokens: as for `Material`.
    """

    def __init__(self, special_tokens: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")  # the same on every system, and safe beside threads
        self._pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, tuple(special_tokens)), daemon=True)
        try:
            self.process.start()
        except OSError:  # none is to be had here: `get` says so
            self._pipe.close()
        finally:
            other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()  # at which the process ends by itself
        if self.process.pid is None:
            return
        self.process.join(PATIENCE_SECONDS)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()
        self.process.close()

    def put(self, part: Sequence[Example]) -> None:
        """Let it look at examples."""
        said = [(example.texts, len(example.messages), example.tools) for example in part]
        with contextlib.suppress(OSError):  # it is gone: `get` says so
            self._pipe.send_bytes(json.dumps(said).encode())

    def get(self) -> list[int] | None:
        """Places in the earliest part that was put and not told of yet, ascending; None where it is gone."""
        try:
            marked = int.from_bytes(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return None
        return [place for place in range(marked.bit_length()) if marked >> place & 1]


def _serve(pipe: Connection, special_tokens: Sequence[str]) -> None:
    """Answer parts of examples with places in them until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it too, and closes the pipe
    with contextlib.suppress(EOFError, OSError):
        while True:
            said = json.loads(pipe.recv_bytes())
            marked = sum(1 << place for place in suspects(said, special_tokens))
            # a bit each: answers that nobody has read yet must fit into any system's pipe, or both would wait
            pipe.send_bytes(marked.to_bytes(len(said) // 8 + 1))


def suspects(said: Sequence[Said], special_tokens: Sequence[str]) -> list[int]:
    """Places of the examples that a check finds something in; of all where one breaks, to be told there."""
    examples = [_example(place, *own) for place, own in enumerate(said)]
    material = Material({"all": examples}, None, None, special_tokens, None, "text")
    try:
        found = [finding for check in OF_ONE.values() for finding in check(material)]
    except Exception:  # as in `run_checks`
        return list(range(len(said)))
    return sorted({example.line for finding in found for example in finding.examples})


def _example(place: int, texts: Sequence[str], messages: int, tools: Sequence[Mapping[str, Any]]) -> Example:
    *asked, answer = texts[:messages]
    turns = (*(Message("user", text) for text in asked), Message("assistant", answer))
    return Example("", turns, "", place, rejected=tuple(texts[messages:]), tools=tuple(tools))
