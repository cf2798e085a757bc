"""The user's files: hashed before they are read, and read once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from luthier.assets import suite_file
from luthier.errors import DataError
from luthier.examples import Example, Loaded, Problem, read_examples
from luthier.examples.hub import HUB, hub_identity
from luthier.pipeline.mixing import name_task
from luthier.recipe import SUITES, DataFiles, digest
from luthier.record import sha256_of


class Sources:
    """The files of a recipe's `data`.

    Args:
        data: by side, with absolute paths, or `suites:FILE` or `hub:OWNER/NAME`.
        texts: plain texts are learnt, as `read_examples` has it.
    """

    def __init__(self, data: DataFiles, *, texts: bool = False) -> None:
        sides = {"train": data.train if isinstance(data.train, str) else None, **data.others}
        self._files = {f"train/{task.task}": task.file for task in data.tasks}
        self._files |= {side: file for side, file in sides.items() if file is not None}
        self._columns, self._bad_rows, self._texts = data.columns, data.bad_rows, texts

    @cached_property
    def hashes(self) -> dict[str, str | None]:
        """sha256 by side, `train/TASK` for the tasks of a mixture; None where there is no file to read."""
        return {side: hash_of(file) for side, file in self._files.items()}

    @property
    def options(self) -> dict[str, Any]:
        """What else decides what is read, where it is not as usual."""
        columns = {"columns": self._columns} if self._columns else {}
        bad_rows = {"bad_rows": self._bad_rows} if self._bad_rows != "stop" else {}
        return columns | bad_rows | ({"texts": True} if self._texts else {})

    @property
    def examples(self) -> dict[str, tuple[Example, ...]]:
        """Examples by side; those of a mixture together, each with its task as a field.

        Rows that cannot be read are left out: see `problems`.

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

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The rows of all files that cannot be read."""
        return tuple(problem for loaded in self._loaded.values() for problem in loaded.problems)

    def refuse_problems(self) -> None:
        """Refuse rows that cannot be read, unless the recipe says that they may be left out.

        Raises:
            DataError: the first of them.
        """
        problems = self.problems
        if problems and self._bad_rows == "stop":
            first, count = problems[0], len(problems)
            others = "it" if count == 1 else f"all {count} such rows"
            fix = f"{first.fix or 'correct it'}; or leave {others} out: `bad_rows: skip` under `data:`"
            raise DataError(first.message, where=first.where, fix=fix)

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
                "described": loaded.describe(),
                **({"revision": loaded.revision} if loaded.revision else {}),
                **({"passed_over": [p.where for p in loaded.passed_over]} if loaded.passed_over else {}),
            }
            for side, loaded in self._loaded.items()
        ]

    @cached_property
    def _loaded(self) -> dict[str, Loaded]:
        return {
            side: read_examples(path, strict=False, columns=self._columns, texts=self._texts)
            for side, path in self._paths.items()
        }

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return {side: path_of(file) for side, file in self._files.items()}


def hash_of(file: str) -> str | None:
    """What the examples that a recipe names depend on: a file's or folder's content, a commit of the hub."""
    return digest(hub_identity(file)) if file.startswith(HUB) else sha256_of(path_of(file))


def path_of(file: str) -> Path:
    """Where examples that a recipe names are: as it says, or `suites:FILE` of the public suites."""
    return suite_file(file.removeprefix(SUITES)) if file.startswith(SUITES) else Path(file)
