"""Training: the loop, batches, schedule and checkpoints."""

from luthier.train.loop import Progress, train

__all__ = ["Progress", "train"]
