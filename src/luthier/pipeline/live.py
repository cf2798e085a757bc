"""Training as it is shown while it runs: one bar, and a line with its course, rate and memory."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from luthier.progress import Advance

if TYPE_CHECKING:
    from luthier.train import Progress
    from luthier.train.estimate import Estimate

EVERY_SECONDS = 0.5  # the words are made twice a second at most
RECENT_SECONDS = 20.0  # of training, over which rates are taken
PRIOR_STEPS = 3  # the estimate counts like so many steps for the time that is left
BLOCKS = "▁▂▃▄▅▆▇█"
COURSE = 16  # characters


class TrainingView:
    """Shows the progress of one training, which may have begun in the middle.

    Args:
        machine_rate: floating-point operations a second that the machine can do; None: not shown.
    """

    def __init__(
        self,
        bar: Advance,
        estimate: Estimate,
        machine_rate: float | None,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bar = bar
        self._estimate = estimate
        self._machine_rate = machine_rate
        self._note = note
        self._clock = clock
        self._losses: list[float] = []
        self._recent: deque[tuple[float, int, int]] = deque()  # seconds, tokens, executed tokens
        self._first: tuple[int, float] | None = None  # steps and seconds before this start's first
        self._shown_step = 0
        self._written_at = -math.inf
        self._detail = self._below = ""

    def __call__(self, progress: Progress) -> None:
        """Take in a step; draw if it is time."""
        if progress.note is not None:
            self._note(progress.note)
        self._losses.append(progress.loss)
        if self._first is None:
            fresh = progress.step == 1
            self._first = (0, 0.0) if fresh else (progress.step, progress.seconds)
            if fresh:
                self._recent.append((0.0, 0, 0))
        if progress.epoch == int(progress.epoch):
            self._recent.clear()  # a validation is no slow step
        self._recent.append((progress.seconds, progress.tokens, progress.executed_tokens))
        while self._recent[0][0] < progress.seconds - RECENT_SECONDS and len(self._recent) > 2:
            self._recent.popleft()
        now = self._clock()
        if now - self._written_at >= EVERY_SECONDS or progress.step == progress.steps:
            self._written_at = now
            self._write(progress)
        self._bar(
            progress.step - self._shown_step,
            self._detail,
            below=self._below,
            left=self._seconds_left(progress),
        )
        self._shown_step = progress.step

    def _write(self, progress: Progress) -> None:
        told = [f"loss {progress.loss:.3f}"]
        if progress.validation_loss is not None:
            told.append(f"validation {progress.validation_loss:.3f}")
        if progress.validation_score is not None:
            told.append(f"score {progress.validation_score:.0%}")
        self._detail = ", ".join(told)
        rates = ", ".join([*self._rates(), f"{progress.memory_bytes / 1e9:.1f} GB"])
        self._below = f"{course(self._losses)}  {rates}" if len(self._losses) > 1 else rates

    def _rates(self) -> list[str]:
        """Useful tokens a second, and the work done as a share of the machine's rate."""
        (began, tokens, executed), (ended, more_tokens, more_executed) = self._recent[0], self._recent[-1]
        if ended <= began:
            return []
        rates = [f"{(more_tokens - tokens) / (ended - began):,.0f} tokens/s"]
        if self._machine_rate is not None:
            a_token = self._estimate.flops / self._estimate.executed_tokens
            share = (more_executed - executed) * a_token / (ended - began) / self._machine_rate
            rates.append(f"{share:.0%} of this machine's {_flops(self._machine_rate)}")
        return rates

    def _seconds_left(self, progress: Progress) -> float:
        """From the steps so far, to which the estimate is added as if it were a few of them."""
        assert self._first is not None
        steps, seconds = progress.step - self._first[0], progress.seconds - self._first[1]
        expected = self._estimate.seconds / max(1, self._estimate.steps)
        a_step = (seconds + PRIOR_STEPS * expected) / (steps + PRIOR_STEPS)
        return (progress.steps - progress.step) * a_step


def course(values: Sequence[float]) -> str:
    """A line of small bars: means over equal parts of `values`, from the lowest to the highest."""
    count = min(COURSE, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.0f} GFLOP/s"
