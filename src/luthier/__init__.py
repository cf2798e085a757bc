"""Luthier: from a file of examples to a decision about fine-tuning.

import luthier

run = luthier.Run(luthier.load_recipe("tickets.yaml"), "runs/tickets")
run.check()
run.split()
run.train()
run.evaluate()
run.probe()
print(run.verdict()["headline"])
run.card()
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from luthier.errors import LuthierError
    from luthier.examples import Example, read_examples
    from luthier.pipeline import Run
    from luthier.recipe import Recipe, load_recipe

_HOMES = {
    "Example": "luthier.examples",
    "LuthierError": "luthier.errors",
    "Recipe": "luthier.recipe",
    "Run": "luthier.pipeline",
    "load_recipe": "luthier.recipe",
    "read_examples": "luthier.examples",
}

__all__ = ["Example", "LuthierError", "Recipe", "Run", "__version__", "load_recipe", "read_examples"]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import luthier` stays light."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'luthier' has no attribute {name!r}")
