"""Hostile text in Markdown: nothing from the data may become a heading, a table cell, a link or HTML."""

from __future__ import annotations

import re
from typing import Any

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_PLAIN = re.compile(r"[\w.,:;/+=%() -]+")


# A numeric interval such as [+4.1, −9.0] is no link and stays readable, unless a link's rest follows.
# An underscore inside a word is no emphasis.
_INTERVAL_OR_MARKUP = re.compile(
    r"(?P<interval>\[[-+−]?[\d.,]+, [-+−]?[\d.,]+\](?![(\[:]))"
    r"|(?P<inner>(?<=[A-Za-z0-9])_(?=[A-Za-z0-9]))"
    r"|[\\`*_\[\]|~#$]"
)


class Markdown(str):
    """Text that is Markdown already; everything else is escaped when a template shows it."""

    __slots__ = ()


def one_line(text: str) -> str:
    """The text with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


def escape(value: Any) -> str:
    """One line of text that reads as itself in Markdown, also inside a table cell.

    Markup characters get a backslash, HTML and mentions become entities, addresses lose what makes
    viewers turn them into links, and line breaks become spaces.
    """
    if isinstance(value, Markdown):
        return value
    text = _INTERVAL_OR_MARKUP.sub(_quote, one_line(str(value)))
    text = "".join(_ENTITIES.get(letter, letter) for letter in text)
    text = re.sub(r"(?i)(https?|ftp)://", r"\1:&#47;&#47;", text)
    text = re.sub(r"(?i)\bwww\.", "www&#46;", text)
    # A line that starts with one of these would open a list, underline a heading or draw a rule.
    return re.sub(r"^([-+](?=\s|$)|[-=]{2,}|=|\d+[.)](?=\s|$))", lambda found: _shield(found.group()), text)


def code(value: Any) -> Markdown:
    """A name in a code span where that is safe, else as escaped text."""
    text = one_line(str(value))
    return Markdown(f"`{text}`") if text and _PLAIN.fullmatch(text) else Markdown(escape(text))


def fence(text: str) -> str:
    """A fence that no run of backticks in the text can close."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))


def _quote(found: re.Match[str]) -> str:
    return found.group() if found.lastgroup else f"\\{found.group()}"


def _shield(marker: str) -> str:
    return f"{marker[:-1]}\\{marker[-1]}"
