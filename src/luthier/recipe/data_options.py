"""Where a recipe's examples are: files by side, and the tasks that training is mixed from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from luthier.recipe.grader_options import Section


class TaskFile(Section):
    """One task of a mixture."""

    file: str = Field(description="Its examples.")
    weight: float = Field(
        1.0, ge=0.01, le=100, description="How often each of them is seen in an epoch; 0.5: every other."
    )
    name: str = Field("", description="Field `task` of its examples; the file's name when absent.")
    source: str | None = Field(None, description="As `data.source`, of this file.")
    licence: str | None = Field(None, description="As `data.licence`, of this file.")

    @property
    def task(self) -> str:
        """What its examples' field `task` says."""
        return self.name or PurePath(self.file).name.split(".")[0]


def check_tasks(tasks: tuple[TaskFile, ...]) -> tuple[TaskFile, ...]:
    """The tasks as they are; none may be called like another, and one has to be seen whole in an epoch.

    Raises:
        ValueError: they are not so.
    """
    names = [task.task for task in tasks]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two tasks are called {twice!r}: give one of them another `name`")
    if max((task.weight for task in tasks), default=0.0) < 1:
        raise ValueError(
            "expected at least one task with a weight of 1 or more: an epoch sees all of its examples"
        )
    return tasks


TrainFiles = Annotated[
    Annotated[str, Tag("one")] | Annotated[tuple[TaskFile, ...], AfterValidator(check_tasks), Tag("tasks")],
    Discriminator(lambda value: "tasks" if isinstance(value, list | tuple) else "one"),
    Field(
        description="Examples to train on, a file or a list of tasks; split leak-safe when `test` is absent."
    ),
]


class DataFiles(Section):
    """Where the examples are. With only `train`, Luthier splits it; given sides are kept as given.

    Each is a file, a folder of files, `hub:OWNER/NAME[@SPLIT]`, or `suites:FILE` of the public suites asset.
    """

    train: TrainFiles
    validation: str | None = Field(None, description="Examples for choosing the best epoch.")
    test: str | None = Field(None, description="Held-out examples; never trained on or shown in a prompt.")
    extra: str | None = Field(
        None, description="More training examples, for one edge case: they move nothing on the other sides."
    )
    source: str | None = Field(
        None, description="Where examples come from that do not say so themselves, for the card."
    )
    licence: str | None = Field(
        None, description="What allows the use of examples that do not say so themselves, for the card."
    )

    columns: dict[str, str] = Field(
        {}, description="What your columns are, by name: {frage: prompt, antwort: completion}."
    )
    bad_rows: Literal["stop", "skip"] = Field(
        "stop", description="What a row that cannot be read does: stop the run, or be left out and counted."
    )

    @property
    def tasks(self) -> tuple[TaskFile, ...]:
        """What training is mixed from; empty where it comes from one file."""
        return () if isinstance(self.train, str) else self.train

    @property
    def others(self) -> dict[str, str | None]:
        """Files of the other sides, by side."""
        return {"validation": self.validation, "test": self.test, "extra": self.extra}


def resolve_files(data: DataFiles, resolve: Callable[[str | None], str | None]) -> DataFiles:
    """The same with every path resolved and every task named."""
    files: dict[str, Any] = {side: resolve(file) for side, file in data.others.items()}
    if isinstance(data.train, str):
        return data.model_copy(update=files | {"train": resolve(data.train)})
    tasks = (t.model_copy(update={"file": resolve(t.file), "name": t.task}) for t in data.train)
    return data.model_copy(update=files | {"train": tuple(tasks)})
