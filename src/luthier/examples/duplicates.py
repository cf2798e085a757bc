"""Near-duplicates: MinHash to find candidates, true Jaccard similarity to decide, union to cluster.

A text is the set of its 4-character shingles (Broder, "On the resemblance and containment of
documents", 1997), taken after normalisation. Two texts are near-duplicates when the Jaccard
similarity of their sets is at least 0.7; a cluster is everything linked that way.

Many data sets wrap every input in the same instructions, which would make all of them alike. Runs of
4 words that at least a fifth of the distinct texts share (and no fewer than 10) are taken out before
shingling. The price: rewordings of one text that make up a fifth of a file count as a template.

MinHash comes from `rensa`; 25 bands of 5 rows find a pair at similarity 0.7 with probability 0.99,
0.8 with 0.9999, and 0.3 with 0.06 (1 - (1 - s^5)^25).

Legend: U distinct texts, S shingles, P = 125 permutations, B = 25 bands.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from luthier.examples.groups import Cluster, Groups
from luthier.examples.wording import split_words

SIMILARITY = 0.7
_SHINGLE = 4
_BANDS, _ROWS_PER_BAND = 25, 5
_TEMPLATE_WORDS, _TEMPLATE_SHARE, _TEMPLATE_TEXTS = 4, 0.2, 10
_TEMPLATE_SAMPLE = 2000
_TEXTS_AT_ONCE = 2048
_NEIGHBOURS = 16
_SEED = 20250101

Hashes = npt.NDArray[np.uint64]


def find_near_duplicates(texts: Sequence[str], *, similarity: float = SIMILARITY) -> list[Cluster]:
    """Clusters of equal or nearly equal texts, by their first member.

    Args:
        texts: normalised texts (`wording.request_text`).
        similarity: least Jaccard similarity of two texts that are linked.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        places[text].append(position)
    distinct = list(places)
    bodies = [_padded(words) for words in _without_template(distinct)]
    groups, weakest = _link(bodies, [_padded(split_words(text)) for text in distinct], similarity)
    clusters = []
    for members in groups.clusters():
        positions = sorted(position for member in members for position in places[distinct[member]])
        if len(positions) > 1:
            clusters.append(Cluster(tuple(positions), weakest.get(groups.root(members[0]), 1.0)))
    return sorted(clusters, key=lambda cluster: cluster.members)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard similarity of two sorted arrays without repeats."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def _without_template(texts: Sequence[str]) -> Iterator[list[str]]:
    """The words of each text without the runs of words that a large share of the texts has."""
    step = max(1, len(texts) // _TEMPLATE_SAMPLE)
    sample = texts[::step]
    counts: Counter[tuple[str, ...]] = Counter()
    for text in sample:
        counts.update(set(_runs(split_words(text))))
    least = max(_TEMPLATE_TEXTS, _TEMPLATE_SHARE * len(sample))
    template = {run for run, count in counts.items() if count >= least}
    for text in texts:
        words = split_words(text)
        if not template:
            yield words
            continue
        shared = {
            i + k for i, run in enumerate(_runs(words)) if run in template for k in range(_TEMPLATE_WORDS)
        }
        yield [word for i, word in enumerate(words) if i not in shared] or words


def _padded(words: list[str]) -> str:
    return f" {' '.join(words)} ".center(_SHINGLE)


def _runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(words[k:] for k in range(_TEMPLATE_WORDS)), strict=False)


def _link(bodies: Sequence[str], wholes: Sequence[str], similarity: float) -> tuple[Groups, dict[int, float]]:
    """Join texts that are similar enough without their template, and whole; also the weakest link by root.

    Whole as well, because "to French: dog" and "to German: dog" are one body under two templates.
    """
    groups = Groups(len(bodies))
    weakest: dict[int, float] = {}
    refused: set[tuple[int, int]] = set()
    body, whole = _shingle_sets(bodies), _shingle_sets(wholes)
    for bucket in _buckets(bodies):
        for at, member in enumerate(bucket):
            for other in bucket[max(0, at - _NEIGHBOURS) : at]:
                pair = (other, member)
                if pair in refused or groups.root(other) == groups.root(member):
                    continue
                value = jaccard(body(other), body(member))
                if value >= similarity:
                    value = min(value, jaccard(whole(other), whole(member)))
                if value < similarity:
                    refused.add(pair)
                    continue
                held = min(value, weakest.get(groups.root(other), 1.0), weakest.get(groups.root(member), 1.0))
                weakest[groups.join(other, member)] = held
    return groups, weakest


def _buckets(bodies: Sequence[str]) -> Iterator[list[int]]:
    """Texts that agree on a whole band of their signatures, band by band."""
    if not bodies:
        return
    keys = np.concatenate(
        [
            _band_keys(bodies[start : start + _TEXTS_AT_ONCE])
            for start in range(0, len(bodies), _TEXTS_AT_ONCE)
        ]
    )  # [U, B]
    for band in keys.T:
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        starts, ends = np.r_[0, edges], np.r_[edges, len(order)]
        for at in np.flatnonzero(ends - starts > 1):
            yield order[starts[at] : ends[at]].tolist()


def _band_keys(bodies: Sequence[str]) -> Hashes:
    hashes, lengths = _shingle_hashes(bodies)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets, num_perm=_BANDS * _ROWS_PER_BAND, seed=_SEED
    )
    signatures = np.array(matrix.to_rows(), dtype=np.uint64)  # [U, P]
    keys = np.zeros((len(bodies), _BANDS), dtype=np.uint64)
    for row in range(_ROWS_PER_BAND):
        keys = _mix(keys * np.uint64(31) + signatures[:, row::_ROWS_PER_BAND])
    return keys


def _shingle_sets(bodies: Sequence[str]) -> Callable[[int], Hashes]:
    @functools.lru_cache(maxsize=20_000)
    def shingles(position: int) -> Hashes:
        return np.unique(_shingle_hashes([bodies[position]])[0])

    return shingles


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
