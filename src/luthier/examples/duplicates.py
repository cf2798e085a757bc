"""Near-duplicates: MinHash finds candidates, true Jaccard similarity and the words decide, union clusters.

A text is the set of its 4-character shingles (Broder, "On the resemblance and containment of
documents", 1997), taken of its core words (`rewording.core_words`). Two texts are *near* when the Jaccard
similarity of their sets is at least 0.7. They *say the same* when it is at least 0.5 and their words agree
(`rewording.agreement`), which tells "capital of France" from "capital of Spain". A cluster is everything
linked in one of these ways; texts that say the same are near, too.

Many data sets wrap every input in the same instructions, which would make all of them alike. Runs of
4 words that at least a fifth of the distinct texts share (and no fewer than 10) are taken out before
shingling. The price: rewordings of one text that make up a fifth of a file count as a template.

MinHash comes from `rensa`; 32 bands of 4 rows find a pair at similarity 0.7 with probability 0.9998,
0.5 with 0.87, and 0.3 with 0.23 (1 - (1 - s^4)^32).

Legend: U distinct texts, S shingles, P = 128 permutations, B = 32 bands, N pairs.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from luthier.examples.groups import Cluster, Groups
from luthier.examples.rewording import AGREEMENT, Vocabulary, agreement, core_words
from luthier.examples.wording import split_words

SIMILARITY = 0.7
SAME_SIMILARITY = 0.5
_SHINGLE = 4
_BANDS, _ROWS_PER_BAND = 32, 4
_DOUBT = 0.1  # of a similarity estimated from P values: more than two standard deviations
_TEMPLATE_WORDS, _TEMPLATE_SHARE, _TEMPLATE_TEXTS = 4, 0.2, 10
_TEMPLATE_SAMPLE = 2000
_TEXTS_AT_ONCE = 2048
_PAIRS_AT_ONCE = 1 << 17
_NEIGHBOURS = 16
_SEED = 20250101

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alike:
    """Clusters of texts, each list by first member; equal texts are in both.

    Attributes:
        near: those that look alike, for splits: what might tell of another stays beside it.
        same: those that say the same; a part of `near`.
    """

    near: tuple[Cluster, ...]
    same: tuple[Cluster, ...]


def find_near_duplicates(texts: Sequence[str], *, similarity: float = SIMILARITY) -> list[Cluster]:
    """Clusters of equal or nearly equal texts, by their first member: `find_alike`'s `near`."""
    return list(find_alike(texts, similarity=similarity).near)


def find_alike(texts: Sequence[str], *, similarity: float = SIMILARITY) -> Alike:
    """Texts that look alike, and those of them that say the same.

    Args:
        texts: normalised texts (`wording.request_text`).
        similarity: least Jaccard similarity of two texts that are near.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        places[text].append(position)
    cores = [core_words(split_words(text)) for text in places]
    members = list(places.values())
    near, same = _link(cores, similarity)
    return Alike(near.clusters(members), same.clusters(members))


class _Linked:
    """Groups, and the weakest link of each by its root."""

    def __init__(self, n: int) -> None:
        self._groups = Groups(n)
        self._weakest: dict[int, float] = {}

    def has(self, a: int, b: int) -> bool:
        return self._groups.root(a) == self._groups.root(b)

    def join(self, a: int, b: int, value: float) -> None:
        held = [self._weakest.get(self._groups.root(one), 1.0) for one in (a, b)]
        self._weakest[self._groups.join(a, b)] = min(value, *held)

    def clusters(self, places: Sequence[Sequence[int]]) -> tuple[Cluster, ...]:
        """Of positions in all texts, from groups of distinct ones."""
        found = []
        for group in self._groups.clusters():
            positions = sorted(position for member in group for position in places[member])
            if len(positions) > 1:
                found.append(Cluster(tuple(positions), self._weakest.get(group[0], 1.0)))
        return tuple(sorted(found, key=lambda cluster: cluster.members))


def _without_template(texts: Sequence[list[str]]) -> Sequence[list[str]]:
    """The words of each text without the runs of words that a large share of the texts has."""
    step = max(1, len(texts) // _TEMPLATE_SAMPLE)
    sample = texts[::step]
    counts: Counter[tuple[str, ...]] = Counter()
    for words in sample:
        counts.update(set(_runs(words)))
    least = max(_TEMPLATE_TEXTS, _TEMPLATE_SHARE * len(sample))
    template = {run for run, count in counts.items() if count >= least}
    return list(_bodies(texts, template)) if template else texts


def _bodies(texts: Sequence[list[str]], template: set[tuple[str, ...]]) -> Iterator[list[str]]:
    for words in texts:
        shared = {
            i + k for i, run in enumerate(_runs(words)) if run in template for k in range(_TEMPLATE_WORDS)
        }
        yield [word for i, word in enumerate(words) if i not in shared] or words


def _padded(words: list[str]) -> str:
    return f" {' '.join(words)} ".center(_SHINGLE)


def _runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(words[k:] for k in range(_TEMPLATE_WORDS)), strict=False)


def _link(cores: Sequence[list[str]], similarity: float) -> tuple[_Linked, _Linked]:
    """Join texts that are similar enough without their template, and whole.

    Whole as well, because "to French: dog" and "to German: dog" are one body under two templates.
    """
    near, same = _Linked(len(cores)), _Linked(len(cores))
    bare = _without_template(cores)
    bodies = [_padded(words) for words in bare]
    least = min(similarity, SAME_SIMILARITY)
    pairs = _candidates(bodies, least)
    values = _similarities(bodies, pairs)
    if bare is not cores:
        values = np.minimum(values, _similarities([_padded(words) for words in cores], pairs))
    vocabulary = Vocabulary(cores)
    for at in np.argsort(
        -values, kind="stable"
    ):  # the strongest first, so that the weakest link is a true one
        value, (a, b) = float(values[at]), pairs[at].tolist()
        if value < least:
            break
        alike = value >= SAME_SIMILARITY and not same.has(a, b)
        if alike and agreement(cores[a], cores[b], vocabulary) >= AGREEMENT:
            same.join(a, b, value)
            near.join(a, b, value)
        if value >= similarity and not near.has(a, b):
            near.join(a, b, value)
    return near, same


def _similarities(texts: Sequence[str], pairs: Pairs) -> npt.NDArray[np.float64]:
    """The Jaccard similarity of each pair [N]."""

    @functools.lru_cache(maxsize=20_000)
    def shingles(position: int) -> set[int]:
        return set(_shingle_hashes([texts[position]])[0].tolist())

    found = np.empty(len(pairs))
    for at, (a, b) in enumerate(pairs.tolist()):
        one, other = shingles(a), shingles(b)
        shared = len(one & other)
        found[at] = shared / (len(one) + len(other) - shared)
    return found


def _candidates(bodies: Sequence[str], least: float) -> Pairs:
    """Pairs [N, 2] that agree on a whole band of their signatures and may be this similar, each once."""
    if not bodies:
        return np.empty((0, 2), dtype=np.int64)
    parts = [
        _signatures(bodies[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(bodies), _TEXTS_AT_ONCE)
    ]
    keys = np.concatenate([part[0] for part in parts])  # [U, B]
    bytes_ = np.concatenate([part[1] for part in parts])  # [U, P]
    found = [np.empty(0, dtype=np.int64)]
    for band in range(_BANDS):
        codes = np.unique(_neighbours(keys, band))
        for start in range(0, len(codes), _PAIRS_AT_ONCE):
            some = codes[start : start + _PAIRS_AT_ONCE]
            a, b = np.divmod(some, len(bodies))
            agreed = (bytes_[a] == bytes_[b]).mean(axis=1)
            found.append(some[agreed >= least - _DOUBT])
    a, b = np.divmod(np.unique(np.concatenate(found)), len(bodies))
    return np.stack([a, b], axis=1)


def _neighbours(keys: Hashes, band: int) -> Pairs:
    """Pairs of a bucket as low * U + high.

    Within a bucket texts stand by their next band, so that in a crowd of look-alikes the most alike meet.
    """
    order = np.lexsort((keys[:, (band + 1) % _BANDS], keys[:, band]))
    sorted_keys = keys[order, band]
    found = []
    for distance in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
        at = np.flatnonzero(sorted_keys[distance:] == sorted_keys[:-distance])
        if not len(at):
            break
        a, b = order[at], order[at + distance]
        found.append(np.minimum(a, b) * len(order) + np.maximum(a, b))
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _signatures(bodies: Sequence[str]) -> tuple[Hashes, npt.NDArray[np.uint8]]:
    """One key for every band [U, B], and a byte of each signature value [U, P]."""
    hashes, lengths = _shingle_hashes(bodies)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets, num_perm=_BANDS * _ROWS_PER_BAND, seed=_SEED
    )
    signatures = np.array(matrix.to_rows(), dtype=np.uint64)  # [U, P]
    keys = np.zeros((len(bodies), _BANDS), dtype=np.uint64)
    for row in range(_ROWS_PER_BAND):
        keys = _mix(keys * np.uint64(31) + signatures[:, row::_ROWS_PER_BAND])
    return keys, signatures.astype(np.uint8)


def _shingle_hashes(bodies: Sequence[str]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """One hash for every 4 characters in a row, text after text [S], and how many each text has."""
    joined = "".join(bodies).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, dtype=np.uint32).astype(np.uint64)
    hashes = codes[: len(codes) - _SHINGLE + 1]
    for k in range(1, _SHINGLE):
        hashes = hashes * np.uint64(0x110000) + codes[k : len(codes) - _SHINGLE + 1 + k]
    lengths = np.array([len(body) for body in bodies])
    ends = np.cumsum(lengths)
    whole = np.ones(len(codes), dtype=bool)
    for k in range(1, _SHINGLE):
        whole[ends - k] = False  # these would reach into the next text
    return _mix(hashes[whole[: len(hashes)]]), lengths - _SHINGLE + 1


def _mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
