"""Methods: each says which sequences it needs and what its loss is, as a function of log-probabilities."""

from luthier.methods.dpo import DPO
from luthier.methods.method import Item, Method
from luthier.methods.orpo import ORPO
from luthier.methods.sft import SFT
from luthier.methods.simpo import SimPO

METHODS: dict[str, Method] = {"sft": SFT()}

__all__ = ["DPO", "METHODS", "ORPO", "SFT", "Item", "Method", "SimPO"]
