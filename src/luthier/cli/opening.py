"""Which run a command is about: that of a recipe, or of an existing folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from luthier.errors import RecipeError
from luthier.recipe import DATA_SUFFIXES, load_recipe

if TYPE_CHECKING:
    from luthier.pipeline import Run

RECIPE_SUFFIXES = (".yaml", ".yml")


def open_run(source: Path, out: Path | None = None) -> Run:
    """The run of a recipe file, in `out` or runs/NAME, or of an existing run folder.

    Raises:
        RecipeError: the recipe cannot be understood, or `out` is given with a run folder.
        RecordError: the folder is not there, or is not a run folder.
    """
    named_as_file = source.suffix in (*RECIPE_SUFFIXES, *DATA_SUFFIXES)
    is_folder = source.is_dir() or not (source.exists() or named_as_file)
    if is_folder and out is not None:
        fix = "leave --out away, or give the recipe"
        raise RecipeError("a run folder is written in place", where=str(source), fix=fix)
    recipe = None if is_folder else load_recipe(source)  # before the heavy imports: mistakes show at once
    from luthier.cli.screen import Screen
    from luthier.pipeline import Run

    if recipe is None:
        return Run.open(source, Screen())
    return Run(recipe, out or Path("runs") / recipe.name, Screen())
