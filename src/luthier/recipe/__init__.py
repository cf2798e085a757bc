"""What the user asked for: keys, their defaults and their mistakes."""

from luthier.recipe.data_options import DataFiles
from luthier.recipe.recipe import (
    DATA_SUFFIXES,
    SUITES,
    Adapter,
    AdapterKind,
    Gates,
    Recipe,
    Train,
    digest,
    dump_recipe,
    load_recipe,
    parse_recipe,
    recipe_schema,
)
from luthier.recipe.stakes_options import Abstain

__all__ = [
    "DATA_SUFFIXES",
    "SUITES",
    "Abstain",
    "Adapter",
    "AdapterKind",
    "DataFiles",
    "Gates",
    "Recipe",
    "Train",
    "digest",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "recipe_schema",
]
