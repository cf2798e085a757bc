"""The main job, from examples to the card, on one run folder."""

from luthier.pipeline.run import Run

__all__ = ["Run"]
