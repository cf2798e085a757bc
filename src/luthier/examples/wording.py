"""The wording of an example with what does not change its meaning taken away.

Everything that asks "is this the same example?" (ids apart) asks it of these texts: the split, the
duplicate checks, the conflict check. Symbols inside words stay, since they carry meaning in code
and numbers: `3-4` is not `3+4`, `C#` is not `C++`, `1.5` is not `15`.
"""

from __future__ import annotations

import re
import unicodedata

from luthier.examples.example import Example

_SENTENCE_MARKS = ".,;:!?\"'`()[]…“”‘’«»。、，！？：；（）「」"
_MARK = f"[{re.escape(_SENTENCE_MARKS)}]"
# A run of marks that ends a word, or begins one; looked at from its first mark alone, so that the time is
# linear in the text. Half the time of `str.strip` on every word.
_MARKS_AT_EDGES = re.compile(rf"{_MARK}(?:(?<!{_MARK}{_MARK}){_MARK}*+(?!\S)|(?<!\S{_MARK}){_MARK}*+)")
# Thai to Khmer, kana and Han: scripts without spaces count one character as one word.
_NO_SPACES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\s{_NO_SPACES}]+")


def normalise(text: str) -> str:
    """Lower case, one space between words, sentence marks at the edges of words taken off.

    >>> normalise("  Where is MY order?? ")
    'where is my order'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _MARKS_AT_EDGES.sub("", text.casefold()).replace("\n", " ")
    if "  " not in text and text.isprintable():  # the only space that is printable is " "
        return text.strip(" ")  # half the time of the words apart
    return " ".join(text.split())


def split_words(text: str) -> list[str]:
    """The words of a normalised text; one character is a word in scripts without spaces."""
    return text.split() if text.isascii() else _WORD.findall(text)


def request_text(example: Example) -> str:
    """What was asked: every turn before the answer but the system prompt, normalised.

    For one question this is the normalised `example.input`. Earlier turns belong to it, because
    "yes, please" asks something else after another conversation. Where nothing was asked, it is the text.
    """
    if not example.request:
        return normalise(example.answer)
    return normalise("\n".join(m.content for m in example.request if m.role != "system"))


def own_system(example: Example) -> str | None:
    """The system prompt that the example carries itself, or None."""
    texts = [m.content for m in example.request if m.role == "system"]
    return "\n".join(texts) if texts else None
