"""What is remembered of every example of a file that is too large to hold: 98 bytes each (see `entry`).

Texts are compared by 64-bit hashes. Those of Python are keyed anew in every process, so nobody can write
texts that collide; among 1,000,000 different texts two collide with probability 3 in 100 million.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from luthier.audit.entry import COLUMNS, Flag, entry, flags_of
from luthier.audit.finding import Material
from luthier.examples.answers import AnswerKind, kind_by_counts

Column = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]


class Ledger:
    """Columns with one entry per example, in the order in which they came.

    Columns (0: there is none): `request` and `asked`, without and with the system prompt; `copy`, all that
    copies share; `system`, the example's own; of the answer `answer` (normalised), `letters` (as
    written, stripped), `structure` (its JSON), `keys` (of its object), its `first` and `last` words where it
    is long, and its length in `characters` and `words`.
    """

    def __init__(self) -> None:
        self._columns = {name: array("q") for name in COLUMNS}
        self._flags = array("H")
        self._rejected = {name: array("q") for name in ("answer", "position")}

    def __len__(self) -> int:
        return len(self._flags)

    def add(self, part: Material) -> None:
        """Enter the examples of a part of the file."""
        entries = []
        for example, request, answer in zip(part.all, part.requests, part.answers, strict=True):
            entries.append(entry(example, request, answer))
            for worse in example.rejected:
                self._rejected["answer"].append(hash(worse.strip()))
                self._rejected["position"].append(len(self))
            self._flags.append(flags_of(example, entries[-1][-1]))
        for name, values in zip(COLUMNS, zip(*entries, strict=True), strict=True):
            self._columns[name].extend(values)

    def column(self, name: str) -> Column:
        """A column, [examples] int64."""
        return np.frombuffer(self._columns[name], dtype=np.int64)

    def flags(self, flag: Flag) -> npt.NDArray[np.bool_]:
        """Which examples have a flag, [examples]."""
        having: npt.NDArray[np.bool_] = (np.frombuffer(self._flags, dtype=np.uint16) & np.uint16(flag)) != 0
        return having

    def judgements(self) -> tuple[Column, Positions, npt.NDArray[np.bool_]]:
        """[judgements] of every judged answer: a hash with its request, its example, whether it is good.

        An example's own answer comes before its worse ones (see `judgement_conflict.judgements`).
        """
        worse, of_worse = (np.frombuffer(column, dtype=np.int64) for column in self._rejected.values())
        positions = np.concatenate([np.arange(len(self)), of_worse])
        answers = np.concatenate([self.column("letters"), worse])
        good = np.concatenate([self.flags(Flag.WANTED), np.zeros(len(worse), dtype=np.bool_)])
        order = np.argsort(positions, kind="stable")
        positions = positions[order]
        return mix(self.column("asked")[positions], answers[order]), positions, good[order]

    def answer_kind(self) -> AnswerKind:
        """The same guess as `kind_of_answers` makes from all wanted answers."""
        wanted = self.flags(Flag.WANTED)
        short = wanted & self.flags(Flag.SHORT)
        return kind_by_counts(
            int(wanted.sum()),
            structures=int((self.column("structure")[wanted] != 0).sum()),
            short=int(short.sum()),
            distinct=len(np.unique(self.column("answer")[short])),
        )


def mix(a: Column, b: Column) -> Column:
    """One hash for two, as the finaliser of splitmix64 makes it."""
    mixed = a.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + b.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.int64)


def groups(keys: Column, positions: Positions | None = None) -> Iterator[Positions]:
    """Places with the same key, at least two together, ascending; groups by their first place.

    Args:
        keys: compared.
        positions: of each key, where it is not its index; ascending.
    """
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, len(order)]
    several = ends - starts > 1
    starts, ends = starts[several], ends[several]
    for at in np.argsort(order[starts], kind="stable"):
        members = order[starts[at] : ends[at]]
        yield members if positions is None else positions[members]


def tally(keys: Column) -> tuple[Column, Positions, Positions]:
    """Distinct keys with their counts and first places, the most frequent first, then the earliest.

    This is the order of `Counter.most_common`.
    """
    distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    return distinct[order], counts[order], first[order]
