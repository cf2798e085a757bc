"""Text of examples and models, made fit to be shown."""

from __future__ import annotations

MOST_LETTERS = 1200


def clean_text(text: str) -> str:
    """Text that can be written as UTF-8 and shown: lone surrogates and control characters become U+FFFD."""
    return "".join(
        "\ufffd" if "\ud800" <= c <= "\udfff" or (c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f" else c
        for c in text.replace("\r\n", "\n")
    )


def clip(text: str, most: int = MOST_LETTERS) -> str:
    """The text, shortened to `most` letters with a note of how many were left out."""
    left_out = len(text) - most
    return text if left_out <= 0 else f"{text[:most]} … ({left_out:,} more characters)"
