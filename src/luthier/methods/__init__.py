"""Methods: each says which sequences it needs and what its loss is, as a function of log-probabilities."""

from luthier.methods.method import Item, Method
from luthier.methods.sft import SFT

METHODS: dict[str, Method] = {"sft": SFT()}

__all__ = ["METHODS", "SFT", "Item", "Method"]
