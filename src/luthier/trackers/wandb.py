"""Weights & Biases: online where it knows who you are, else kept in the run folder for `wandb sync`."""

from __future__ import annotations

import contextlib
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from luthier.trackers.tracker import PROJECT

if TYPE_CHECKING:
    from luthier.trackers.tracker import Plain


class WeightsAndBiases:
    """One run of the project `luthier`, or of the one that WANDB_PROJECT names. WANDB_MODE is respected."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity
        self._run: Any = None

    def start(self, run_name: str, config: Mapping[str, Plain]) -> str:
        """Without a key the run is offline: wandb would wait for one to be typed."""
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self._identity,
            name=run_name,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(self._folder)),
            mode=os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline"),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
        )
        if self._run.settings.mode == "offline":
            return f"offline; to send it: wandb sync {Path(self._run.dir).parent}"
        return str(self._run.url or f"mode {self._run.settings.mode}")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of one step are put together by wandb."""
        self._run.log(dict(numbers), step=step)

    def finish(self, *, done: bool) -> None:
        """Wait until all is written or sent; one that is not done shows as failed."""
        self._run.finish(exit_code=0 if done else 1)


def _has_key() -> bool:
    """Whether `wandb login` was made on this machine, or a variable holds what it asks for."""
    if "WANDB_API_KEY" in os.environ or "WANDB_IDENTITY_TOKEN_FILE" in os.environ:
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    return False
