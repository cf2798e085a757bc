"""The templates of card, report and the audit's page: their filters, and what pages carry within them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Any

import jinja2

from luthier.card import numbers
from luthier.card.facts import as_sentence
from luthier.card.meanings import meaning_of, why_unprobed


def environment(**options: Any) -> jinja2.Environment:
    """Templates of this package, in which what is undefined is an error.

    Args:
        options: of Jinja2; how text is escaped is the caller's to say.
    """
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("luthier", "card"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    shown: tuple[Callable[..., str], ...] = (
        numbers.percent,
        numbers.points,
        numbers.with_interval,
        numbers.quantity,
        numbers.bare,
        numbers.bounds,
        numbers.probability,
        numbers.count,
        numbers.duration,
        meaning_of,
        why_unprobed,
    )
    made.filters |= {"sentence": as_sentence, **{show.__name__: show for show in shown}}
    return made


def read_asset(name: str) -> str:
    """A style sheet or script of this package, to be written into a page."""
    return resources.files("luthier.card").joinpath(name).read_text(encoding="utf-8").strip()


def content_policy(style: str, script: str) -> str:
    """A Content-Security-Policy that forbids every request, and all code but these two, by their sha256."""

    def pin(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    allowed = f"default-src 'none'; style-src {pin(style)}; script-src {pin(script)}"
    return f"{allowed}; base-uri 'none'; form-action 'none'"
