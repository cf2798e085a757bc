"""The user's files: hashed before they are read, and read once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from luthier.assets import suite_file
from luthier.examples import Example, Loaded, read_examples
from luthier.pipeline.mixing import name_task
from luthier.recipe import SUITES, DataFiles
from luthier.record import sha256_of


class Sources:
    """The files of a recipe's `data`.

    Args:
        data: by side, with absolute paths, or `suites:FILE` for a file of the public suites.
    """

    def __init__(self, data: DataFiles) -> None:
        sides = {"train": None if data.tasks else data.train, **data.model_dump(exclude={"train"})}
        self._files = {f"train/{task.task}": task.file for task in data.tasks}
        self._files |= {side: file for side, file in sides.items() if file is not None}

    @cached_property
    def hashes(self) -> dict[str, str | None]:
        """sha256 by side, `train/TASK` for the tasks of a mixture; None where there is no file to read."""
        return {side: sha256_of(path) for side, path in self._paths.items()}

    @property
    def examples(self) -> dict[str, tuple[Example, ...]]:
        """Examples by side; those of a mixture together, each with its task as a field.

        Raises:
            DataError: a file cannot be read, or its rows have a field `task` in a mixture.
        """
        mixed: list[Example] = []
        taken: set[str] = set()
        sides: dict[str, tuple[Example, ...]] = {}
        for name, loaded in self._loaded.items():
            side, _, task = name.partition("/")
            if task:
                mixed += name_task(loaded.examples, task, taken)
                sides[side] = tuple(mixed)
            else:
                sides[side] = loaded.examples
        return sides

    def provenance(self) -> list[dict[str, Any]]:
        """`sources` of `data/manifest.json`."""
        return [
            {
                "side": side,
                "file": self._files[side],
                "sha256": self.hashes[side],
                "format": loaded.format,
                "examples": len(loaded.examples),
                "left_out": len(loaded.problems),
            }
            for side, loaded in self._loaded.items()
        ]

    @cached_property
    def _loaded(self) -> dict[str, Loaded]:
        return {side: read_examples(path) for side, path in self._paths.items()}

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return {side: path_of(file) for side, file in self._files.items()}


def path_of(file: str) -> Path:
    """Where a file of examples that a recipe names is: its own, or `suites:FILE` of the public suites."""
    return suite_file(file.removeprefix(SUITES)) if file.startswith(SUITES) else Path(file)
