"""`python:file.py:function`: the user's own grader, imported from a file of theirs."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import math
import numbers
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from luthier.errors import DataError, LuthierError, RecipeError
from luthier.examples.example import Example
from luthier.grade.score import Score

ADVICE = "def {function}(answer, reference, example) returns 0 to 1, a bool, None or a dict with 'score'"


class PythonFile:
    """Calls `function(answer, reference, example)`; `example` is the dict of `Example.as_row`.

    The function returns a number from 0 to 1, a bool, None (unscored), or a dict with `score` and
    optionally `reason`; the dict's other keys become the detail.

    Args:
        spec: `python:file.py:function`.

    Raises:
        RecipeError: the file or the function is missing, broken, or takes other arguments.
    """

    def __init__(self, spec: str) -> None:
        self.name = spec
        self._path, self._function_name = _split(spec)
        self.metric = self._function_name.replace("_", " ")
        self._function = _load_function(self._path, self._function_name)

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer.

        Raises:
            LuthierError: the function raised; the message has its file and line.
            DataError: it returned something that is no score.
        """
        try:
            result = self._function(answer, reference, example.as_row())
        except (Exception, SystemExit) as error:
            raise LuthierError(
                f"{self._function_name} failed on {example.where}: {type(error).__name__}: {error}",
                where=_place(self._path, error),
                fix="mend the function; let it return None for an answer that cannot be scored",
            ) from error
        return self._read(result, example)

    def _read(self, result: Any, example: Example) -> Score:
        value, reason, detail = result, None, {}
        if isinstance(result, dict):
            if "score" not in result:
                raise self._refusal(f"a dict without 'score' (keys: {', '.join(map(repr, result))})", example)
            detail = {key: item for key, item in result.items() if key not in ("score", "reason")}
            value, reason = result["score"], result.get("reason")
            reason = None if reason is None else str(reason)
            try:
                json.dumps(detail, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise self._refusal(f"a detail that is not JSON ({error})", example) from None
        if value is None:
            return Score(None, reason or f"{self._function_name} returned None", detail)
        if type(value).__name__ in ("bool", "bool_"):  # numpy's bool is no Real and no int
            return Score(1.0 if value else 0.0, reason, detail)
        if not isinstance(value, numbers.Real):
            raise self._refusal(f"{type(value).__name__} {value!r:.80}", example)
        number = float(value)
        if math.isnan(number) or not 0.0 <= number <= 1.0:
            raise self._refusal(f"{number}, which is not from 0 to 1", example)
        return Score(number, reason, detail)

    def _refusal(self, received: str, example: Example) -> DataError:
        return DataError(
            f"{self._function_name} returned {received}, for {example.where}",
            where=str(self._path),
            fix=ADVICE.format(function=self._function_name),
        )


def _split(spec: str) -> tuple[Path, str]:
    file, _, function = spec.removeprefix("python:").rpartition(":")
    if not spec.startswith("python:") or not file or not function.isidentifier():
        raise RecipeError(f"expected python:FILE.py:FUNCTION, got {spec!r}")
    return Path(file), function


def _load_function(path: Path, name: str) -> Callable[[str, str, dict[str, Any]], Any]:
    if not path.is_file():
        raise RecipeError(
            "no such grader file", where=str(path), fix="paths are relative to the recipe's folder"
        )
    function = getattr(_import(path), name, None)
    if not callable(function):
        found = "nothing of that name" if function is None else f"a {type(function).__name__}"
        raise RecipeError(
            f"expected a function {name!r}, found {found}", where=str(path), fix=ADVICE.format(function=name)
        )
    if inspect.iscoroutinefunction(function):
        raise RecipeError(f"{name} is async; graders are plain functions", where=str(path))
    try:
        inspect.signature(function).bind("answer", "reference", {})
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{name} cannot be called with three arguments: {error}",
            where=str(path),
            fix=ADVICE.format(function=name),
        ) from None
    return function  # type: ignore[no-any-return]


def _import(path: Path) -> ModuleType:
    resolved = path.resolve()
    module_name = f"luthier_grader_{hashlib.sha256(str(resolved).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, resolved)
    if spec is None or spec.loader is None:
        raise RecipeError("a grader file's name ends in .py", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and typing look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module_name, None)
        raise RecipeError(
            f"the grader file cannot be imported: {type(error).__name__}: {error}",
            where=_place(path, error),
            fix="run it by itself with python until it loads",
        ) from error
    return module


def _place(path: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(path.resolve()):
        return f"{path}:{error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path.resolve()
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)
