"""What is said of all answers and prompts of a file together, from counts.

The findings are those of the checks of the same names. Texts that they quote are looked up afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from luthier.audit.class_imbalance import RARE_EXAMPLES, RARE_LISTED, imbalance
from luthier.audit.entry import Flag
from luthier.audit.finding import Finding, NotApplicableError
from luthier.audit.inconsistent_answers import (
    SPELLINGS_LISTED,
    Wording,
    edge_spaces,
    keys_of,
    label_spellings,
    mixed_json,
    other_keys,
)
from luthier.audit.ledger import Ledger, Positions, groups, tally
from luthier.audit.prompt_mismatch import system_mismatch
from luthier.audit.repeats import Found, Pending, disagreeing, limited, places
from luthier.audit.too_few_examples import too_few
from luthier.examples.answers import AnswerKind, parse_structure
from luthier.examples.wording import own_system

Say = Callable[[Found], Wording]


def draft_class_imbalance(ledger: Ledger, kind: AnswerKind) -> Iterator[Pending]:
    """The findings of `class_imbalance`.

    Raises:
        NotApplicableError: the answers are not labels.
    """
    if kind != "label":
        raise NotApplicableError(f"the answers are {kind}, not labels")
    wanted = np.flatnonzero(ledger.flags(Flag.WANTED))
    answers = ledger.column("answer")[wanted]
    labels, counts, first = tally(answers)
    rare = counts < RARE_EXAMPLES
    members = wanted[np.isin(answers, labels[rare])]
    listed = np.flatnonzero(rare)[np.argsort(first[rare], kind="stable")][:RARE_LISTED]
    quoted = {
        int(at): int(wanted[np.flatnonzero(answers == labels[at])[-1]])
        for at in (0, len(labels) - 1, *listed)
    }

    def make(examples: Found) -> list[Finding]:
        spelt = {at: examples[position].answer for at, position in quoted.items()}
        sizes = [(spelt.get(at, ""), int(count)) for at, count in enumerate(counts)]
        found = imbalance(sizes, [spelt[int(at)] for at in listed], [examples[m] for m in places(members)])
        return [limited(finding, len(members)) if finding.examples else finding for finding in found]

    yield Pending("class_imbalance", None, (*places(members), *quoted.values()), make)


def draft_inconsistent_answers(ledger: Ledger, kind: AnswerKind) -> Iterator[Pending]:
    """The findings of `inconsistent_answers` that can be counted one example at a time."""
    wanted = np.flatnonzero(ledger.flags(Flag.WANTED))
    structured = ledger.column("structure")[wanted] != 0
    count = int(structured.sum())
    if count not in (0, len(wanted)):
        minority = 2 * count <= len(wanted)
        members = wanted[structured == minority]
        wording = mixed_json(len(members), are_json=minority)
        yield _deviation(members, len(wanted), (), lambda examples: wording)
    yield from _key_sets(ledger, wanted)
    spaced = wanted[ledger.flags(Flag.SPACED)[wanted]]
    if len(spaced):
        yield _deviation(spaced, len(wanted), (), lambda examples: edge_spaces(len(spaced)))
    if kind == "label":
        yield from _label_spellings(ledger, wanted)


def _deviation(members: Positions, total: int, quoted: tuple[int, ...], say: Say) -> Pending:
    def make(examples: Found) -> list[Finding]:
        message, fix = say(examples)
        shown = tuple(examples[m] for m in places(members))
        finding = Finding("inconsistent_answers", "warning", len(members) / total, message, fix, shown)
        return [limited(finding, len(members))]

    return Pending("inconsistent_answers", "warning", (*places(members), *quoted), make)


def _key_sets(ledger: Ledger, wanted: Positions) -> Iterator[Pending]:
    keys = ledger.column("keys")[wanted]
    objects = wanted[keys != 0]
    sets, _, first = tally(keys[keys != 0])
    if len(sets) < 2:
        return
    usual, other = int(objects[first[0]]), int(objects[first[1:].min()])
    members = objects[keys[keys != 0] != sets[0]]

    def say(examples: Found) -> Wording:
        own = [keys_of(parse_structure(examples[at].answer)) or frozenset() for at in (usual, other)]
        return other_keys(len(members), *own)

    yield _deviation(members, len(wanted), (usual, other), say)


def _label_spellings(ledger: Ledger, wanted: Positions) -> Iterator[Pending]:
    letters = ledger.column("letters")
    answers = ledger.column("answer")
    mixed = wanted[disagreeing(answers[wanted], letters[wanted])]
    if not len(mixed):
        return
    labels = list(groups(answers[mixed], mixed))
    deviating = []
    for members in labels:
        usual = Counter(letters[members].tolist()).most_common(1)[0][0]
        deviating.append(members[letters[members] != usual])
    unusual = np.sort(np.concatenate(deviating))
    ways = Counter(letters[labels[0]].tolist()).most_common(SPELLINGS_LISTED)
    quoted = tuple(int(labels[0][np.argmax(letters[labels[0]] == way)]) for way, _ in ways)

    def say(examples: Found) -> Wording:
        return label_spellings(len(labels), [examples[at].answer.strip() for at in quoted])

    yield _deviation(unusual, len(wanted), quoted, say)


def draft_prompt_mismatch(ledger: Ledger, system: str | None) -> Iterator[Pending]:
    """The findings of `prompt_mismatch` about system prompts."""
    wanted = np.flatnonzero(ledger.flags(Flag.WANTED))
    systems = ledger.column("system")[wanted]
    own, bare = wanted[systems != 0], wanted[systems == 0]
    expected = 0 if system is None else hash((system,))
    other = wanted[(systems != 0) & (systems != expected)]
    minority = own if len(own) <= len(bare) else bare

    def make(examples: Found) -> list[Finding]:
        such = (own_system(examples[int(other[0])]) or "") if len(other) else ""
        shown = [examples[m] for m in places(minority)]
        found = system_mismatch(system, (len(own), len(bare), len(other)), such, shown)
        return [limited(finding, len(minority)) if finding.examples else finding for finding in found]

    yield Pending("prompt_mismatch", None, (*places(minority), *places(other[:1])), make)


def draft_too_few_examples(ledger: Ledger, test_share: float) -> Iterator[Pending]:
    """The finding of `too_few_examples` for a file that will be split."""
    count = round(test_share * int(ledger.flags(Flag.WANTED).sum()))
    yield Pending(
        "too_few_examples", None, (), lambda examples: too_few(count, "test examples after the split")
    )
