"""Texts of examples for a page that is passed on: personal data and secrets masked, what matters marked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.audit.masking import find_private
from luthier.audit.personal_data import mask
from luthier.card.plain_text import clean_text

Mark = Literal["", "hidden", "special", "changed"]
# Whole, even where its end is missing: what follows is no text to be shown.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY[A-Z0-9 ]{0,10}-----.*?(?:-----END [A-Z0-9 ]{0,50}-----|\Z)",
    re.DOTALL,
)
_SPECIAL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|<</?SYS>>|\[/?INST\]|\[/?AVAILABLE_TOOLS\]"
)
_CUT = "…"
_LEAST_CUT = 4  # characters of a secret before a cut from which it is masked there too


@dataclass(frozen=True)
class Piece:
    """A stretch of text and why it stands out; no mark, no reason."""

    text: str
    mark: Mark = ""


class Masked:
    """What is hidden of some texts: found once in all of them, hidden wherever it occurs.

    Args:
        texts: whole, because what a number is can depend on the words before it.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._found = sorted({hit for text in texts for _, hit in find_private(text)}, key=len, reverse=True)
        patterns = [_PRIVATE_KEY.pattern, *map(re.escape, self._found)]
        self._pattern = re.compile("|".join(patterns), re.DOTALL)

    def hide(self, text: str) -> str:
        """The text with everything masked, cut or whole."""
        return "".join(piece.text for piece in self.pieces(text))

    def pieces(self, text: str) -> list[Piece]:
        """The text in stretches: what is masked, what looks like a special token, and the rest."""
        pieces, end = [], 0
        for match in self._pattern.finditer(text):
            pieces += _special_apart(self._cut_hidden(text[end : match.start()]))
            is_key = match.group().startswith("-----BEGIN")
            pieces.append(Piece("private key" if is_key else clean_text(mask(match.group())), "hidden"))
            end = match.end()
        return pieces + _special_apart(self._cut_hidden(text[end:]))

    def _cut_hidden(self, text: str) -> str:
        """Messages quote texts cut short; the start of a secret before the cut goes too."""
        if _CUT not in text:
            return text
        for found in self._found:
            for length in range(len(found) - 1, _LEAST_CUT - 1, -1):
                text = text.replace(found[:length] + _CUT, found[:2] + _CUT)
        return text


def clip_pieces(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """At most about `most` characters, those around the first mark where it lies beyond them."""
    total = sum(len(piece.text) for piece in pieces)
    if total <= most:
        return list(pieces)
    at, first = 0, 0
    for piece in pieces:
        if piece.mark:
            first = at
            break
        at += len(piece.text)
    start = max(0, first - most // 3) if first > most // 2 else 0
    kept = [Piece("… ")] if start else []
    kept += cut_pieces(pieces, start, start + most)
    return [*kept, Piece(f" … ({total:,} characters)")]


def cut_pieces(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """The characters from `start` to `end` of the pieces' text, in order."""
    kept, at = [], 0
    for piece in pieces:
        text = piece.text[max(0, start - at) : max(0, end - at)]
        at += len(piece.text)
        if text:
            kept.append(Piece(text, piece.mark))
    return kept


def show_edges(pieces: Sequence[Piece]) -> list[Piece]:
    """The same with spaces and line breaks at either end as signs, since they would not be seen."""
    shown = list(pieces)
    if shown and (tail := len(shown[-1].text) - len(shown[-1].text.rstrip())):
        last = shown.pop()
        shown += [Piece(last.text[:-tail], last.mark), _signs(last.text[-tail:])]
    if shown and (head := len(shown[0].text) - len(shown[0].text.lstrip())):
        first = shown.pop(0)
        shown[:0] = [_signs(first.text[:head]), Piece(first.text[head:], first.mark)]
    return [piece for piece in shown if piece.text]


def _signs(spaces: str) -> Piece:
    return Piece("".join({"\n": "⏎", "\t": "⇥"}.get(c, "␣") for c in spaces[:20]), "special")


def _special_apart(text: str) -> list[Piece]:
    pieces, end = [], 0
    for match in _SPECIAL.finditer(text):
        pieces += [Piece(clean_text(text[end : match.start()])), Piece(match.group(), "special")]
        end = match.end()
    pieces.append(Piece(clean_text(text[end:])))
    return [piece for piece in pieces if piece.text]
