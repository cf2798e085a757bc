"""How long work shows itself: a port that the command line and notebooks fill in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Advance(Protocol):
    """Moves a bar by `done`.

    `detail` is shown beside the bar, and stays; `below` is a line under it while it moves. `left` are
    the seconds to its end, where the caller knows them better than the bar.
    """

    def __call__(
        self, done: int, detail: str = "", *, below: str = "", left: float | None = None
    ) -> None: ...


class Show(Protocol):
    """Where stages report what they are doing."""

    def note(self, text: str) -> None:
        """Say one line."""
        ...

    def task(self, what: str, total: int | None) -> contextlib.AbstractContextManager[Advance]:
        """Show a bar while the context is open; the value advances it. `total` None: unknown."""
        ...


class Silent:
    """Shows nothing: the default of the Python API."""

    def note(self, text: str) -> None:
        """Say nothing."""

    @contextlib.contextmanager
    def task(self, what: str, total: int | None) -> Iterator[Advance]:
        """Show nothing."""
        yield lambda done, detail="", *, below="", left=None: None
