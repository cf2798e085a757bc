"""Methods: each says which sequences it needs and what its loss is, as a function of log-probabilities."""

from collections.abc import Callable

from luthier.methods.best_of import BestOf
from luthier.methods.classify import Classify
from luthier.methods.cpt import CPT
from luthier.methods.distill import Distill, distill
from luthier.methods.dpo import DPO
from luthier.methods.grpo import GRPO
from luthier.methods.kto import KTO
from luthier.methods.method import Item, Method
from luthier.methods.orpo import ORPO
from luthier.methods.ppo import PPO
from luthier.methods.reward import Reward
from luthier.methods.rloo import RLOO
from luthier.methods.sft import SFT
from luthier.methods.simpo import SimPO
from luthier.recipe.method_options import MethodOptions

METHODS: dict[str, Callable[..., Method]] = {
    "sft": SFT,
    "cpt": CPT,
    "distill": distill,
    "dpo": DPO,
    "kto": KTO,
    "orpo": ORPO,
    "simpo": SimPO,
    "grpo": GRPO,
    "rloo": RLOO,
    "ppo": PPO,
    "best_of": BestOf,
    "reward": Reward,
    "classify": Classify,
}


def build_method(options: str | MethodOptions) -> Method:
    """The method that a recipe names, with its options."""
    if isinstance(options, str):
        return METHODS[options]()
    return METHODS[options.kind](**options.model_dump(exclude={"kind"}))


__all__ = [
    "CPT",
    "DPO",
    "GRPO",
    "KTO",
    "METHODS",
    "ORPO",
    "PPO",
    "RLOO",
    "SFT",
    "BestOf",
    "Classify",
    "Distill",
    "Item",
    "Method",
    "Reward",
    "SimPO",
    "build_method",
]
