"""Errors that a user can act on: what was received and where, what was expected, how to fix it.

Everything Luthier raises on purpose descends from `LuthierError`, carries its exit code, and prints
as one to three lines. Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

EXIT_SHIP = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_DO_NOT_SHIP = 3
EXIT_INCONCLUSIVE = 4
EXIT_INTERRUPTED = 130


class LuthierError(Exception):
    """A failure with a place and a fix.

    Args:
        message: what was received and what was expected.
        where: a place the user can open, as `file:line` or a path.
        fix: what to do about it, as an imperative sentence.
    """

    exit_code = EXIT_ERROR

    def __init__(self, message: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.message = message
        self.where = where
        self.fix = fix
        super().__init__(self.render())

    def render(self) -> str:
        """The error as it is shown: `place: message`, then the fix on a line of its own."""
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\nFix: {self.fix}" if self.fix else head


class RecipeError(LuthierError):
    """The recipe, or an option of a command, cannot be understood."""

    exit_code = EXIT_USAGE


class DataError(LuthierError):
    """The examples cannot be read, split or trained on."""


class ModelError(LuthierError):
    """A model or its tokenizer cannot be found, read or used."""


class AssetError(LuthierError):
    """A pinned asset (the embedded model, the public suites) cannot be fetched or verified."""


class TrainingError(LuthierError):
    """Training stopped before an update that would have been wrong."""


class StoppedError(TrainingError):
    """Training was asked to stop from outside; what was done is saved."""


class RecordError(LuthierError):
    """A run folder is missing something, is in use, or cannot be written."""
