"""Train, validation and test: leak-safe, stratified, reproducible, and stable when examples are added.

Examples that must not part ways form a group: those the user gave the same `group`, those whose
request is the same after normalisation, and clusters of near-duplicates. The side of a group is that
of its first member in reading order, and that is a coin whose outcome is fixed by sha256(seed, key):
the key is the user's group name where there is one, else the normalised request.

Labels get their share by force. A group whose answer is short (three words or fewer: a property of the
example alone) is of a stratum, that of its normalised answer. In each stratum a balance is kept in
reading order: the coin decides unless that would leave the stratum more than 2 groups above or below
its share of the test side so far; then the balance does. Validation comes after test in the same way. So
at any point of the file a label has its share of test to within 2 groups (near-duplicates apart, which
fall on one side together), and with test = 0.3 any label of seven groups has one to test. Longer answers
have no stratum: the coin alone decides.

What moves when the file changes:
- Examples added at the end, of old labels or new ones, move nothing, because a side depends on what was
  read before it alone. One exception: an example that joins two groups (or, rarely, makes a phrase common
  enough to count as a template) moves the later of them to the side of the earlier.
- Of a label, a group added or removed further up moves some of those below it, as their balance has
  changed: one in eight, measured at the default shares, and five in six of those tested stay so
  (`tests/test_split.py`). Other labels and longer answers stay, but for clusters whose first member changes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.examples.groups import Groups
from luthier.examples.turns import read_text
from luthier.examples.wording import normalise, request_text, split_words

SMALLEST = {"train": 8, "validation": 1, "test": 8}
LABEL_WORDS = 3
LEEWAY = 2.0  # groups; less would keep shares closer, and move more when a row is taken out
Side = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """Three sides without a group in common; each in reading order.

    Attributes:
        unwanted: by side, answers that should not be given, where they are kept apart from the others.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    unwanted: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)

    def sides(self) -> dict[str, tuple[Example, ...]]:
        """The sides by name, for the audit and the run folder."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def with_unwanted(self, side: str) -> tuple[Example, ...]:
        """A side, and then its answers that should not be given."""
        return (*self.sides()[side], *self.unwanted.get(side, ()))


def split_examples(
    examples: Sequence[Example],
    *,
    validation: float,
    test: float,
    seed: int,
    near_duplicates: Iterable[Sequence[int]] = (),
    given: Mapping[Side, Sequence[Example]] | None = None,
) -> Split:
    """Divide examples into sides, keeping groups whole.

    Args:
        examples: everything without a side yet.
        validation, test: shares of the groups, together below 1.
        seed: another seed, another split.
        near_duplicates: clusters of positions in `examples` (`Cluster.members`).
        given: sides that the user brought; kept as they are, and not drawn from `examples`.
            Leakage between them and the rest is the audit's to report.

    Raises:
        DataError: a side has fewer examples than `SMALLEST` (train 8, validation 1, test 8), those not
            counted whose answer should not be given: they are neither shown nor asked.
    """
    given = given or {}
    shares = {
        "validation": 0.0 if "validation" in given else validation,
        "test": 0.0 if "test" in given else test,
    }
    groups, births = _group(examples, near_duplicates)
    side_of = _draw(births, seed, shares)
    sides: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for number, example in enumerate(examples):
        sides[side_of[groups.root(number)]].append(example)
    for name, brought in given.items():
        sides[name].extend(brought)
    if any(_wanted(sides[name]) < least for name, least in SMALLEST.items()):
        raise _too_small(examples, sides, groups, births, shares, given)
    return Split(tuple(sides["train"]), tuple(sides["validation"]), tuple(sides["test"]))


def group_by(examples: Sequence[Example], column: str) -> tuple[Example, ...]:
    """The same examples, grouped by another column than `group`; a row without a value is a group by itself.

    Raises:
        DataError: no row has the column, or it was read as a part of the conversation.
    """
    if examples and not any(column in example.fields for example in examples):
        found = ", ".join(dict.fromkeys(name for example in examples for name in example.fields)) or "none"
        raise DataError(
            f"no column {column!r} to group by; columns beside the conversation: {found}",
            where=examples[0].file,
            fix="name one of them in split.group, or leave it out",
        )
    values = (example.fields.get(column) for example in examples)
    return tuple(
        replace(example, group=None if value in (None, "") else read_text(value, column))
        for example, value in zip(examples, values, strict=True)
    )


def _wanted(examples: Iterable[Example]) -> int:
    return sum(example.wanted for example in examples)


@dataclass(frozen=True)
class _Birth:
    """An example that was of no group by request or name when it was read: where its coin comes from.

    Near-duplicates are no part of this, since an example read later can make two of them one group.
    """

    key: str
    stratum: tuple[object, ...] | None


@dataclass
class _Balance:
    """Groups of one stratum so far, by side."""

    groups: int = 0
    test: int = 0
    validation: int = 0

    def place(self, coin: float, shares: Mapping[str, float]) -> Side:
        """The side of the next group."""
        self.groups += 1
        side = _side(coin, shares)
        is_test = _balanced(side == "test", self.test, self.groups * shares["test"])
        self.test += is_test
        if is_test:
            return "test"
        is_validation = _balanced(side == "validation", self.validation, self.groups * shares["validation"])
        self.validation += is_validation
        return "validation" if is_validation else "train"


def _balanced(wanted: bool, count: int, due: float) -> bool:
    """What is wanted, unless `count` would then part from what is `due` by more than the leeway."""
    if count + 1 - due > LEEWAY:
        return False
    return wanted or count - due < -LEEWAY


def _group(
    examples: Sequence[Example], near_duplicates: Iterable[Sequence[int]]
) -> tuple[Groups, dict[int, _Birth]]:
    """The groups, and the births among the examples; the first member of a group always is one."""
    groups = Groups(len(examples))
    first: dict[tuple[str, str], int] = {}
    births = {}
    for number, example in enumerate(examples):
        names = [("request", request_text(example))]
        if example.group is not None:
            names.append(("group", example.group))
        if not any(name in first for name in names):
            births[number] = _Birth(":".join(names[-1]), _stratum(example))
        for name in names:
            groups.join(number, first.setdefault(name, number))
    for cluster in near_duplicates:
        for number in cluster[1:]:
            groups.join(cluster[0], number)
    return groups, births


def _stratum(example: Example) -> tuple[object, ...] | None:
    """The label that an example has, told from it alone: its normalised answer, where that is short.

    Answers to give and not to give are counted apart, and so are the tasks of a mixture, each of which
    can grow at its end.
    """
    if not example.request:
        return None
    label = normalise(example.answer) or example.answer.strip()
    if len(split_words(label)) > LABEL_WORDS:
        return None
    return label, example.wanted, str(example.fields.get("task", ""))


def _draw(births: Mapping[int, _Birth], seed: int, shares: Mapping[str, float]) -> dict[int, Side]:
    """The side of every birth, in reading order."""
    balances: dict[tuple[object, ...], _Balance] = {}
    drawn: dict[int, Side] = {}
    for number, birth in births.items():
        coin = int.from_bytes(hashlib.sha256(f"{seed}\0{birth.key}".encode()).digest()[:8]) / 2**64
        if birth.stratum is None:
            drawn[number] = _side(coin, shares)
        else:
            drawn[number] = balances.setdefault(birth.stratum, _Balance()).place(coin, shares)
    return drawn


def _side(coin: float, shares: Mapping[str, float]) -> Side:
    """Test from below and validation from above, so changing one share leaves the other side alone."""
    if coin < shares["test"]:
        return "test"
    return "validation" if coin >= 1 - shares["validation"] else "train"


def _too_small(
    examples: Sequence[Example],
    sides: Mapping[str, Sequence[Example]],
    groups: Groups,
    births: Mapping[int, _Birth],
    shares: Mapping[str, float],
    given: Mapping[Side, Sequence[Example]],
) -> DataError:
    counts = {name: _wanted(members) for name, members in sides.items()}
    sizes = ", ".join(f"{name} {count} (at least {SMALLEST[name]})" for name, count in counts.items())
    clusters = groups.clusters()
    largest = max(map(len, clusters), default=0)
    message = f"{len(examples)} examples in {len(clusters)} separate groups give {sizes}"
    if any(count < len(sides[name]) for name, count in counts.items()):
        message += ", not counting answers that should not be given"
    short = [name for name, least in SMALLEST.items() if counts[name] < least]
    if set(short) & set(given):
        return DataError(message, where=_file(given, short), fix=f"add examples to the {short[0]} file")
    if largest > len(examples) / 4 and largest > 1:
        message += f"; the largest group holds {largest}"
        fix = "a `group` and near-duplicates stay on one side: use finer groups, remove duplicates"
    elif seed := _working_seed(examples, groups, births, shares, given):
        fix = f"add examples, or draw again with seed: {seed}"
    else:
        fix = "add examples: 40 is the least for the default shares, a few hundred make a verdict possible"
    return DataError(message, where=examples[0].file if examples else None, fix=fix)


def _file(given: Mapping[Side, Sequence[Example]], short: Sequence[str]) -> str | None:
    brought = [example for name in short for example in given.get(name, ())]  # type: ignore[call-overload]
    return brought[0].file if brought else None


def _working_seed(
    examples: Sequence[Example],
    groups: Groups,
    births: Mapping[int, _Birth],
    shares: Mapping[str, float],
    given: Mapping[Side, Sequence[Example]],
) -> int | None:
    """The smallest seed under which every side is large enough, among the first hundred."""
    wanted = [groups.root(number) for number, example in enumerate(examples) if example.wanted]
    for seed in range(1, 101):
        side_of = _draw(births, seed, shares)
        counts = Counter(side_of[root] for root in wanted)
        if all(counts[name] >= SMALLEST[name] for name in SMALLEST if name not in given):  # type: ignore[index]
            return seed
    return None
