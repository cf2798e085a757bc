"""The prefix forest: sequences that share prefixes, computed once and exactly."""

from luthier.forest.logprobs import logprobs, score
from luthier.forest.packing import pack

__all__ = ["logprobs", "pack", "score"]
