"""Which records of a log the user wants: by model, by time, by rating."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from luthier.collect.log_record import Exchange
from luthier.errors import RecipeError

TIMES = (
    "created", "created_at", "createdAt", "timestamp", "@timestamp", "time", "startTime", "start_time",
    "request_created_at", "date", "at",
)  # fmt: skip
EARLIEST_SECONDS = 1e8  # of 1973: what is less is a duration
_CONTAINERS = ("metadata", "scores", "feedback", "properties", "request_properties", "evaluation")
_RATING = re.compile(r"\s*(?P<field>[^<>=!]+?)\s*(?P<sign>>=|<=|!=|==|=|>|<)\s*(?P<value>.+?)\s*")
_SIGNS = {">=": (1, 0), "<=": (-1, 0), ">": (1,), "<": (-1,), "=": (0,), "==": (0,), "!=": (-1, 1)}


@dataclass(frozen=True)
class Rating:
    """A field with a least, largest or exact value."""

    field: str
    sign: str
    value: str

    def is_met(self, found: Any) -> bool:
        """Whether a value of the field is one that is wanted; numbers count as numbers, true as 1."""
        a, b = _number(found), _number(self.value)
        if a is not None and b is not None:
            return (a > b) - (a < b) in _SIGNS[self.sign]
        if self.sign in ("=", "==", "!="):
            return (str(found).strip().lower() == self.value.lower()) == (self.sign != "!=")
        return False


@dataclass(frozen=True)
class Wanted:
    """What the user asks for.

    Attributes:
        model: name of who answered, `*` for any letters.
        since: nothing that is older.
        ratings: all have to be met.
    """

    model: str | None = None
    since: datetime | None = None
    ratings: tuple[Rating, ...] = ()

    def refuse(self, record: Mapping[str, Any], exchange: Exchange, at: datetime | None) -> str | None:
        """Why a record is not wanted; None where it is."""
        if self.model is not None and not fnmatchcase((exchange.model or "").lower(), self.model.lower()):
            return "another model" if exchange.model else "the model is not recorded"
        if self.since is not None and (at is None or at < self.since):
            return "the time is not recorded" if at is None else f"older than {self.since.date()}"
        for rating in self.ratings:
            found = look_up(record, rating.field)
            if found is None:
                return f"no rating {rating.field}"
            if not rating.is_met(found):
                return f"not {rating.field} {rating.sign} {rating.value}"
        return None


def parse_rating(text: str) -> Rating:
    """A rating as it is typed, such as `feedback.score>=4`.

    Raises:
        RecipeError: it is none.
    """
    match = _RATING.fullmatch(text)
    if match is None:
        raise RecipeError(f"--rating {text!r} is no condition", fix='write it in quotes: --rating "score>=4"')
    rating = Rating(match["field"], match["sign"], match["value"])
    if rating.sign in (">", "<", ">=", "<=") and _number(rating.value) is None:
        raise RecipeError(f"--rating {text!r} compares with no number", fix='write --rating "score>=4"')
    return rating


def parse_since(text: str) -> datetime:
    """A date, or a date and time, as ISO 8601 writes them; without a zone it is UTC.

    Raises:
        RecipeError: it is none.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise RecipeError(f"--since {text!r} is no date", fix="write --since 2026-01-31") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def time_of(record: Mapping[str, Any], exchange: Exchange) -> tuple[datetime | None, str | None]:
    """When a request was made, and the column that says so (None: the answer itself)."""
    for key in TIMES:
        if (found := _parse_time(record.get(key))) is not None:
            return found, key
    for key in ("created", "created_at"):
        if (found := _parse_time(exchange.response.get(key))) is not None:
            return found, None
    return None, None


def look_up(record: Mapping[str, Any], field: str) -> Any:
    """A field by its name, by a path with dots, or in one of the usual places; None where it is not."""
    places = [record, *(record[name] for name in _CONTAINERS if name in record)]
    for place in places:
        found = _walk(place, field)
        if found is not None:
            return found
    return None


def _walk(place: Any, field: str) -> Any:
    if isinstance(place, list):  # [{"name": "helpful", "value": 4}, …]
        named = [
            item
            for item in place
            if isinstance(item, Mapping) and field in (item.get("name"), item.get("key"))
        ]
        return next((item.get("value", item.get("score")) for item in named), None)
    if not isinstance(place, Mapping):
        return None
    if field in place:
        return place[field]
    head, dot, rest = field.partition(".")
    return _walk(place.get(head), rest) if dot else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return {"true": 1.0, "false": 0.0}.get(str(value).strip().lower())


def _parse_time(value: Any) -> datetime | None:
    """A time as seconds, milliseconds, micro- or nanoseconds since 1970, or as ISO 8601."""
    if isinstance(value, str) and not re.fullmatch(r"\d{9,20}(?:\.\d+)?", value):
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    seconds = float(value)
    if seconds < EARLIEST_SECONDS:
        return None
    while seconds > 1e11:
        seconds /= 1000
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
