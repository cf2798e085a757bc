"""Train, validation and test: leak-safe, reproducible, and stable when examples are added.

Examples that must not part ways form a group: those the user gave the same `group`, those whose
request is the same after normalisation, and clusters of near-duplicates. The side of a group is a
coin whose outcome is fixed by sha256(seed, key), where the key is that of its first member in reading
order: the user's group name where it has one, else the hash of its normalised request.

So an example keeps its side when others are added after it, whatever they are, with one exception:
an example that joins two groups (or, rarely, makes a phrase common enough to count as a template)
moves the later group to the side of the earlier one. Adding examples in front, or shuffling, moves
nothing but clusters whose first member changes.

Labels are not balanced by force. A quota per label needs to know the other examples, so one more
row would move old ones across the line between train and test. The coin is independent of the
answer, so each label gets its share up to chance: a label with k groups lacks a test example with
probability (1 - test)^k, 3% at k = 10 and test = 0.3; the audit names labels too rare to test.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.examples.groups import Groups
from luthier.examples.wording import request_text

SMALLEST = {"train": 8, "validation": 1, "test": 8}
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
    groups = _group(examples, near_duplicates)
    sides: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for number, example in enumerate(examples):
        side = _side(_key(examples[groups.root(number)]), seed, shares)
        sides[side].append(example)
    for name, brought in given.items():
        sides[name].extend(brought)
    if any(_wanted(sides[name]) < least for name, least in SMALLEST.items()):
        raise _too_small(examples, sides, groups, shares, given)
    return Split(tuple(sides["train"]), tuple(sides["validation"]), tuple(sides["test"]))


def _wanted(examples: Iterable[Example]) -> int:
    return sum(example.wanted for example in examples)


def _group(examples: Sequence[Example], near_duplicates: Iterable[Sequence[int]]) -> Groups:
    groups = Groups(len(examples))
    first: dict[tuple[str, str], int] = {}
    for number, example in enumerate(examples):
        groups.join(number, first.setdefault(("request", request_text(example)), number))
        if example.group is not None:
            groups.join(number, first.setdefault(("group", example.group), number))
    for cluster in near_duplicates:
        for number in cluster[1:]:
            groups.join(cluster[0], number)
    return groups


def _key(example: Example) -> str:
    return f"group:{example.group}" if example.group is not None else f"request:{request_text(example)}"


def _side(key: str, seed: int, shares: Mapping[str, float]) -> Side:
    """Test from below and validation from above, so changing one share leaves the other side alone."""
    toss = int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8]) / 2**64
    if toss < shares["test"]:
        return "test"
    return "validation" if toss >= 1 - shares["validation"] else "train"


def _too_small(
    examples: Sequence[Example],
    sides: Mapping[str, Sequence[Example]],
    groups: Groups,
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
    elif seed := _working_seed(examples, groups, shares, given):
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
    shares: Mapping[str, float],
    given: Mapping[Side, Sequence[Example]],
) -> int | None:
    """The smallest seed under which every side is large enough, among the first hundred."""
    keys = [_key(examples[groups.root(number)]) for number in range(len(examples))]
    for seed in range(1, 101):
        counts = Counter(
            _side(key, seed, shares) for key, example in zip(keys, examples, strict=True) if example.wanted
        )
        if all(counts[name] >= SMALLEST[name] for name in SMALLEST if name not in given):  # type: ignore[index]
            return seed
    return None
