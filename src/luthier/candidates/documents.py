"""The user's documents as passages that a prompt can hold; nothing of the held-out side is among them."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from luthier.errors import DataError

SUFFIXES = (".txt", ".md", ".jsonl")
TEXT_KEYS = ("text", "content")
LEAK_CHARACTERS = 20  # a shorter request, such as "How much is it?", may stand anywhere by chance


@dataclass(frozen=True)
class Passage:
    """A few paragraphs of a document, with its title."""

    title: str
    text: str


def read_documents(path: Path) -> list[Passage]:
    """Whole documents: a .txt or .md file each, or a line of .jsonl with `text` (and `title`) each.

    Args:
        path: a file, or a folder whose files are read, those of its folders too.

    Raises:
        DataError: there is nothing to read, or a line is no document.
    """
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in found if file.is_file() and file.suffix.lower() in SUFFIXES]
    documents = [document for file in files for document in _read(file)]
    if not any(document.text.strip() for document in documents):
        raise DataError(
            "no documents were found",
            where=str(path),
            fix=f"name a folder or a file of {', '.join(SUFFIXES)}",
        )
    return documents


def _read(file: Path) -> Iterator[Passage]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(file)) from None
    if file.suffix.lower() != ".jsonl":
        yield Passage(file.stem, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"not valid JSON: {error}", where=f"{file}:{number}") from None
        row = {"text": row} if isinstance(row, str) else row
        body = next((row[key] for key in TEXT_KEYS if key in row), None) if isinstance(row, dict) else None
        if not isinstance(body, str):
            raise DataError("no document", where=f"{file}:{number}", fix='write {"title": ..., "text": ...}')
        yield Passage(str(row.get("title") or file.stem), body)


def cut_passages(
    documents: Sequence[Passage], held_out: Sequence[str], *, words: int
) -> tuple[list[Passage], int]:
    """Documents in passages of at most `words` words, whole paragraphs where they fit.

    Args:
        held_out: requests of the held-out examples. A passage that holds one of at least 20 characters
            would give its answer away, or be the example itself, and is left out.

    Returns:
        The passages, and how many were left out.
    """
    secret = {_plain(text) for text in held_out}
    secret = {text for text in secret if len(text) >= LEAK_CHARACTERS}
    kept: list[Passage] = []
    dropped = 0
    for document in documents:
        paragraphs = [paragraph.split() for paragraph in document.text.split("\n\n")]
        tokens = [word for paragraph in paragraphs for word in paragraph]
        told = _told(tokens, secret)
        for first, end in _ranges([len(paragraph) for paragraph in paragraphs], words):
            if any(first < last and begin < end for begin, last in told):
                dropped += 1
            else:
                kept.append(Passage(document.title, " ".join(tokens[first:end])))
    return kept, dropped


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _told(tokens: Sequence[str], secret: set[str]) -> list[tuple[int, int]]:
    """Ranges of words in which a held-out request is written out."""
    folded = [word.casefold() for word in tokens]
    text = " ".join(folded)
    starts = [0, *accumulate(len(word) + 1 for word in folded)]
    ranges = []
    for request in secret:
        place = text.find(request)
        while place >= 0:
            ranges.append((bisect_right(starts, place) - 1, bisect_left(starts, place + len(request))))
            place = text.find(request, place + 1)
    return ranges


def _ranges(lengths: Sequence[int], words: int) -> Iterator[tuple[int, int]]:
    """Ranges of words: paragraphs together while they fit, a longer one cut."""
    first = end = 0
    for length in lengths:
        if end > first and end + length - first > words:
            yield first, end
            first = end
        end += length
        while end - first > words:
            yield first, first + words
            first += words
    if end > first:
        yield first, end
