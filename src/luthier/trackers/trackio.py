"""trackio: its own local store (TRACKIO_DIR), or the server or Space that its variables name."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from luthier.trackers.tracker import PROJECT

if TYPE_CHECKING:
    from luthier.trackers.tracker import Plain


class Trackio:
    """One run of the project `luthier`. Its store is shared by all runs: the folder is fixed on import."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._run: Any = None

    def start(self, run_name: str, config: Mapping[str, Plain]) -> str:
        """trackio knows runs by their names, so that the identity is a part of it."""
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):  # it greets on the screen
            self._run = trackio.init(
                project=PROJECT,
                name=f"{run_name}-{self._identity}",
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
            )
        return f"trackio show --project {PROJECT}"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers are written in batches, by a thread of trackio's."""
        self._run.log(dict(numbers), step=step)

    def finish(self, *, done: bool) -> None:
        """Write what is held back."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()
