"""The prefix forest: sequences that share prefixes, computed once and exactly."""

from luthier.forest.logprobs import logprobs, score, soft_targets
from luthier.forest.packing import pack
from luthier.forest.soft_targets import SoftTargets

__all__ = ["SoftTargets", "logprobs", "pack", "score", "soft_targets"]
