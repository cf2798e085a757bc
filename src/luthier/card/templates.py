"""The templates of card and report: one set of filters for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2

from luthier.card import numbers
from luthier.card.facts import as_sentence


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
    )
    made.filters |= {"sentence": as_sentence, **{show.__name__: show for show in shown}}
    return made
