"""What is said of answers one by one, and of how they begin and end, from counts of all of them.

The findings are those of the checks of the same names. Texts that they quote are looked up afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from luthier.audit.copied_answer import copy_finding, is_usual, usual_copies
from luthier.audit.entry import Flag
from luthier.audit.finding import Finding, NotApplicableError, Severity
from luthier.audit.ledger import Ledger, Positions, tally
from luthier.audit.refusal import ENDS, LEAST_EXAMPLES, SHARE, WHOLE, shared_end, small_talk
from luthier.audit.repeats import Found, Pending, limited, places
from luthier.audit.sentence_ends import Words, are_cut
from luthier.audit.unfinished_answer import (
    LEAST_CAP,
    LEAST_SENTENCES,
    NEARLY_CAP,
    cap_finding,
    is_cap,
    is_few,
    sentence_finding,
)
from luthier.examples.answers import AnswerKind
from luthier.examples.example import Example
from luthier.examples.wording import normalise

Placed = Sequence[tuple[int, Example]]


def draft_copied_answers(ledger: Ledger, kind: AnswerKind) -> Iterator[Pending]:
    """The findings of `copied_answer`.

    Raises:
        NotApplicableError: the answers are labels.
    """
    wanted = _wanted(ledger, kind)
    copied = wanted[ledger.flags(Flag.COPIED)[wanted]]
    share = len(copied) / len(wanted)
    if is_usual(len(copied), share):
        yield _listing("copied_answer", "info", copied, lambda shown: usual_copies(len(copied), share, shown))
        return
    for position in copied.tolist():
        yield _listing("copied_answer", "warning", [position], lambda shown: copy_finding(shown[0], share))


def draft_refusals(ledger: Ledger, kind: AnswerKind) -> Iterator[Pending]:
    """The findings of `refusal` on what many answers share.

    Raises:
        NotApplicableError: the answers are labels.
    """
    wanted = _wanted(ledger, kind)
    talking = wanted[ledger.flags(Flag.TALKS)[wanted]]
    if len(talking):
        share = len(talking) / len(wanted)
        yield _listing("refusal", "info", talking, lambda shown: small_talk(len(talking), share, shown))
    long = wanted[ledger.column("first")[wanted] != 0]
    if kind != "text" or len(long) < LEAST_EXAMPLES:
        return
    for where, column in (("begin", "first"), ("end", "last")):
        words = ledger.column(column)[long]
        usual, counts, _ = tally(words)
        share = int(counts[0]) / len(long)
        if SHARE <= share <= WHOLE:
            yield _listing("refusal", "info", long[words == usual[0]], _shared(where, share))


def _shared(where: str, share: float) -> Callable[[Sequence[Example]], Finding]:
    return lambda shown: shared_end(where, ENDS[where](normalise(shown[0].answer)), share, shown)


def draft_unfinished_answers(ledger: Ledger, kind: AnswerKind, sample: Placed) -> Iterator[Pending]:
    """The findings of `unfinished_answer` but for answers with something open in them.

    Whether answers stop within a word, and whether they are cut where many have no mark at their end, is
    judged by a sample of the examples, given with their positions.

    Raises:
        NotApplicableError: the answers are labels.
    """
    wanted = _wanted(ledger, kind)
    closed = wanted[~ledger.flags(Flag.OPEN)[wanted]]
    yield from _at_a_cap(ledger, closed)
    is_ended = ledger.flags(Flag.ENDED)
    is_sentence = np.zeros(len(ledger), dtype=np.bool_)
    is_sentence[closed] = ledger.flags(Flag.SENTENCE)[closed]
    bare = np.flatnonzero(is_sentence & ~is_ended)
    total = int(is_sentence.sum())
    if not len(bare) or total < LEAST_SENTENCES:
        return
    known = [(position, example.answer) for position, example in sample if is_sentence[position]]
    words = Words(answer for _, answer in known)
    of_bare = [(position, answer) for position, answer in known if not is_ended[position]]
    ended = [answer for position, answer in known if is_ended[position]]
    if not is_few(len(bare) / total) and not are_cut([answer for _, answer in of_bare], ended, words):
        return
    stopped = [
        *bare[ledger.flags(Flag.STOPS)[bare]][:1].tolist(),
        *(position for position, answer in of_bare if words.is_begun(answer)),
    ]
    yield _sentences(bare, len(bare) / total, min(stopped, default=int(bare[0])), stopped=bool(stopped))


def _sentences(bare: Positions, share: float, first: int, *, stopped: bool) -> Pending:
    def make(examples: Found) -> list[Finding]:
        shown = [examples[m] for m in places(bare)]
        found = sentence_finding(len(bare), share, examples[first], shown, stopped=stopped)
        return [limited(found, len(bare))]

    return Pending("unfinished_answer", "warning" if stopped else "info", (*places(bare), first), make)


def _at_a_cap(ledger: Ledger, closed: Positions) -> Iterator[Pending]:
    for unit in LEAST_CAP:
        lengths = ledger.column(unit)[closed]
        cap = int(lengths.max(initial=0))
        members = closed[lengths == cap]
        nearly = int(((lengths < cap) & (lengths >= NEARLY_CAP * cap)).sum())
        bare = int((~ledger.flags(Flag.ENDED)[members]).sum())
        if is_cap(unit, cap, (len(closed), len(members), nearly, bare)):
            say = functools.partial(cap_finding, unit, cap, len(members) / len(closed), len(members))
            yield _listing("unfinished_answer", "warning", members, say)
            return


def _wanted(ledger: Ledger, kind: AnswerKind) -> Positions:
    if kind == "label":
        raise NotApplicableError("the answers are labels")
    return np.flatnonzero(ledger.flags(Flag.WANTED))


def _listing(
    check: str,
    severity: Severity,
    members: Positions | Sequence[int],
    say: Callable[[Sequence[Example]], Finding],
) -> Pending:
    def make(examples: Found) -> list[Finding]:
        return [limited(say([examples[m] for m in places(members)]), len(members))]

    return Pending(check, severity, places(members), make)
