"""Characters that went wrong on the way: misread UTF-8, lost and invisible characters, entities.

A model learns to write them, and a request that is spelt rightly no longer looks like its examples. What
scripts need is left alone: joiners in Persian, Indic scripts and emoji, direction marks beside letters that
run from the right, no-break spaces where French and numbers have them, entities in markup.
"""

from __future__ import annotations

import html.entities
import re
from collections import Counter
from collections.abc import Iterator

from luthier.audit.finding import Finding, Material, counted, shown
from luthier.examples.example import Example

# UTF-8 read as Windows-1252: the bytes 80 to BF that go on a character, as that encoding shows them.
_LEFT = "€‚ƒ„†‡ˆ‰Š‹ŒŽ™š›œžŸ\x80-\x9f\xa0-¿"
_MARKS = "…‘’“”•–—˜"  # of those, what may rightly follow a letter: counted only inside a word
_NEXT = f"[{_LEFT}{_MARKS}]"
_MISREAD = re.compile(
    rf"[ÂÃÄÅ](?:[{_LEFT}]|[{_MARKS}](?=[A-Za-z]))"  # é, ü, ß, ł ...
    rf"|â€{_NEXT}?|â„¢|â‚¬|ï»¿|ï¿½|ðŸ{_NEXT}{{0,2}}"  # quotes, dashes, ™, €, a byte order mark, emoji
    rf"|(?:[ÐÑ]{_NEXT}){{2,}}|(?:[ÎÏ]{_NEXT}){{2,}}|(?:[ØÙÚÛ]{_NEXT}){{2,}}"  # Cyrillic, Greek, Arabic
    rf"|(?:[ã-é]{_NEXT}{_NEXT}){{2,}}"  # Chinese, Japanese, Korean
)
_SUSPECTS = re.compile("[ÂÃÄÅâïðÐÑÎÏØÙÚÛ\ufffd]|[ã-é][^a-zA-Z\\s]")
_UPPER_CONTROL = re.compile(r"[\x80-\x9f]")  # quotes and dashes of Windows-1252, read as Latin-1
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0001-\U000e007f]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_NO_BREAK = re.compile("(?<=[^\\W\\d_])\u00a0(?=[^\\W\\d_]{2})")
_ENTITY = re.compile(r"&(?:#\d{2,6}|#[xX][0-9a-fA-F]{2,6}|[A-Za-z]{2,8}\d{0,2});")
_MARKUP = re.compile(r"</?[A-Za-z!][^<>]{0,200}>|`|\bhtml\b", re.IGNORECASE)
_ISOLATES, _MARKS_OF_DIRECTION, _JOINERS = "\u2066\u2067\u2068\u2069", "\u200e\u200f", "\u200c\u200d"
_ORDINARY = bytes(range(32, 127)).replace(b"&", b"") + b"\t\n\r"
_FLAG = "\U0001f3f4"  # what tag characters after it spell is a flag


def find_encoding_faults(material: Material) -> list[Finding]:
    """One finding per example that has any; score is how many such places it has."""
    return [
        found
        for example, text in zip(material.all, material.joined_texts, strict=True)
        if not _is_plain(text) and (found := encoding_fault(example))
    ]


def encoding_fault(example: Example) -> Finding | None:
    """What went wrong with the characters of one example, or None."""
    text = "\n".join(example.texts)
    if _is_plain(text):
        return None
    found = list(encoding_faults(text))
    if not found:
        return None
    kinds = Counter(kind for kind, _ in found)
    first = found[0][1]
    misread, lost = "misread character" in kinds, "lost character" in kinds
    told = shown(_around(text, first), 30) if first.isprintable() else _code(first)
    return Finding(
        check="encoding",
        severity="info" if kinds.keys() <= {"no-break space"} else "warning",
        score=float(len(found)),
        message=f"{_place(example, found)} has "
        f"{' and '.join(counted(n, kind) for kind, n in kinds.items())}, such as {told}",
        fix="read the source again in its true encoding, or repair it"
        if misread or lost
        else "replace them: the model learns to write them, and nobody types them",
        examples=(example,),
    )


def _is_plain(text: str) -> bool:
    """A quick look that nearly every text passes: ASCII, or nothing that is unseen or often misread."""
    if text.isascii() and not text.encode("ascii").translate(None, _ORDINARY):
        return True
    if "&" in text and _ENTITY.search(text):
        return False
    seen = text.replace("\n", "").replace("\t", "").replace("\r", "")
    return seen.isprintable() and (seen.isascii() or not _SUSPECTS.search(seen))


def _code(character: str) -> str:
    return f"U+{ord(character[0]):04X}"


def encoding_faults(text: str) -> Iterator[tuple[str, str]]:
    """What went wrong in a text: (kind, the text of it)."""
    if not text.isascii():
        yield from (("misread character", match.group()) for match in _MISREAD.finditer(text))
        text = _MISREAD.sub("", text)  # parts of them are invisible, too
        yield from (("misread character", match.group()) for match in _UPPER_CONTROL.finditer(text))
        yield from (("lost character", "\ufffd") for _ in range(text.count("\ufffd")))
        if _INVISIBLE.search(text):
            yield from _invisible(text)
        yield from (("no-break space", "\u00a0") for _ in _NO_BREAK.finditer(text))
    yield from (("control character", match.group()) for match in _CONTROL.finditer(text))
    if "&" in text and not _MARKUP.search(text):
        for match in _ENTITY.finditer(text):
            name = match.group()[1:]
            if name.startswith("#") or name in html.entities.html5:
                yield "HTML entity", match.group()


def repair_misread(text: str) -> str:
    """The text with UTF-8 that was read as Windows-1252 read rightly, where that can be undone.

    >>> repair_misread("cafÃ©")
    'café'
    """
    text = _MISREAD.sub(lambda match: _read_again(match.group()), text)
    return _UPPER_CONTROL.sub(lambda match: match.group().encode("latin-1").decode("cp1252", "ignore"), text)


def _read_again(part: str) -> str:
    try:
        return b"".join(_byte(character) for character in part).decode()
    except UnicodeError:
        return part


def _byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeError:
        return character.encode("latin-1")  # five bytes that Windows-1252 leaves out


def _invisible(text: str) -> Iterator[tuple[str, str]]:
    leftwards = bool(_RIGHT_TO_LEFT.search(text))
    for match in _INVISIBLE.finditer(text):
        character, start = match.group(), match.start()
        before, after = text[max(0, start - 1) : start], text[start + 1 : start + 2]
        if character >= "\U000e0000":
            if _FLAG not in text[max(0, start - 8) : start]:
                yield "hidden tag character", character
        elif character in _JOINERS:
            if before.isascii() and after.isascii():
                yield "zero-width character", character
        elif character in _MARKS_OF_DIRECTION or character in _ISOLATES or "\u202a" <= character <= "\u202e":
            if not leftwards:
                yield "direction control", character
        elif character == "\u00ad":
            yield "soft hyphen", character
        else:
            yield "zero-width character", character


def _around(text: str, part: str) -> str:
    """The word that a part of a text stands in."""
    at = text.index(part)
    head: str = re.findall(r"\S*$", text[max(0, at - 15) : at])[0]
    tail: str = re.findall(r"^\S*", text[at + len(part) : at + len(part) + 15])[0]
    return head + part + tail


def _place(example: Example, found: list[tuple[str, str]]) -> str:
    if not example.request:
        return "the text"
    return "the answer" if any(part in example.answer for _, part in found) else "the input"
