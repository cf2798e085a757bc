"""The settings of the peers that change their speed and not what they compute."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

Feeding = Literal["padded", "free", "packed", "grouped", "rebalanced"]
FEEDINGS = {
    "padded": "padded",
    "free": "padding-free",
    "packed": "packed",
    "grouped": "grouped by length",
    "rebalanced": "batch_rebalance",
}


@dataclass(frozen=True)
class TrlSettings:
    """TRL's trainers.

    Attributes:
        micro_batch: examples of one forward pass; gradients are accumulated over the batch.
        feeding: `padded` micro-batches of neighbours in length; `free` of padding, in one row; `packed`
            by best fit to the longest sequence; `grouped` by length over the whole data; `rebalanced`
            micro-batches of even cost within each batch.
        compile: torch.compile.
    """

    micro_batch: int
    feeding: Feeding = "padded"
    compile: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        return ", ".join(
            [f"{self.micro_batch} at once, {FEEDINGS[self.feeding]}"] + ["compiled"] * self.compile
        )

    @property
    def keeps_batches(self) -> bool:
        """Whether every step sees the same examples as Luthier's."""
        return self.feeding not in ("packed", "grouped")

    @staticmethod
    def parse(text: str) -> TrlSettings:
        """As `4`, `8,free` or `1,compile`. Raises ValueError."""
        size, *flags = text.split(",")
        feedings = [flag for flag in flags if flag in FEEDINGS]
        if len(feedings) > 1 or set(flags) - set(FEEDINGS) - {"compile"}:
            raise ValueError(f"expected a size, then one of {', '.join(FEEDINGS)}, then compile: {text}")
        return TrlSettings(_size(size), (feedings or ["padded"])[0], "compile" in flags)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LmEvalSettings:
    """lm-eval's `hf` backend: requests of one forward pass."""

    batch_size: int

    @property
    def name(self) -> str:
        """For tables."""
        return f"batch_size {self.batch_size}"

    @staticmethod
    def parse(text: str) -> LmEvalSettings:
        """As `4`. Raises ValueError."""
        return LmEvalSettings(_size(text))


@dataclass(frozen=True)
class TransformersSettings:
    """Transformers' `generate`.

    Attributes:
        batch_size: prompts at once, left-padded, neighbours in length.
        cache: `dynamic`, `static`, or `prefix`: a dynamic cache that starts with the shared prefix.
    """

    batch_size: int
    cache: Literal["dynamic", "static", "prefix"] = "dynamic"

    @property
    def name(self) -> str:
        """For tables."""
        shown = "cache of the shared prefix reused" if self.cache == "prefix" else f"{self.cache} cache"
        return f"{self.batch_size} at once, {shown}"

    @staticmethod
    def parse(text: str) -> TransformersSettings:
        """As `32` or `64,prefix`. Raises ValueError."""
        size, *rest = text.split(",")
        cache = rest[0] if rest else "dynamic"
        if len(rest) > 1 or cache not in ("dynamic", "static", "prefix"):
            raise ValueError(f"expected a size, then dynamic, static or prefix: {text}")
        return TransformersSettings(_size(size), cache)  # type: ignore[arg-type]


Settings = TrlSettings | LmEvalSettings | TransformersSettings


def as_job(settings: Settings) -> dict[str, Any]:
    """Plain values for a worker."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _size(text: str) -> int:
    size = int(text)
    if size < 1:
        raise ValueError(f"expected a size of at least 1, got {text}")
    return size
