"""The verdict: gates over scores and probes."""

from luthier.verdict.decision import (
    decide,
)

__all__ = [
    "decide",
]
