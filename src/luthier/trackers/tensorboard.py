"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from luthier.trackers.tracker import Plain


class TensorBoard:
    """Writes events into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config: Mapping[str, Plain] = {}
        self._writer: SummaryWriter | None = None

    def start(self, run_name: str, config: Mapping[str, Plain]) -> str:
        """Nothing is written before the first step, which says what of an earlier try is void."""
        import torch.utils.tensorboard  # noqa: F401  # takes seconds, and fails here if it does

        self._config = config
        return f"tensorboard --logdir {self._folder}"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Each number is a scalar."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
            rows = "".join(f"| {key} | {value} |\n" for key, value in self._config.items())
            self._writer.add_text("recipe", f"| key | value |\n|---|---|\n{rows}", step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, *, done: bool) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()
