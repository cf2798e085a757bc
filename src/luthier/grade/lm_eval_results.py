"""Readers of the files that lm-evaluation-harness writes: `results_*.json` and `samples_*.jsonl`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import DataError

ADVICE = "name the folder or a results_*.json that lm_eval wrote with --output_path"


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task.

    Attributes:
        task, metric: as lm-eval calls them, such as `boolq` and `acc`.
        filter: which of the task's ways to read an answer was used; `none` is the usual one.
        value: the metric as it is written: most are shares from 0 to 1, some are not.
        stderr: its standard error; None where lm-eval gives none.
        n: items behind it; None where the file does not say (lm-eval before 0.4.3).
        higher_is_better: None where the file does not say.
        version: of the task, as text.
        group: whether it is the mean of several tasks, which are there too.
    """

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    n: int | None
    higher_is_better: bool | None
    version: str | None
    group: bool = False


@dataclass(frozen=True)
class SampleScores:
    """One metric of one task, item by item, for paired comparisons.

    Attributes:
        scores: by lm-eval's `doc_id`.
    """

    task: str
    metric: str
    filter: str
    scores: Mapping[str, float]

    @property
    def n(self) -> int:
        """How many items."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """The mean over the items."""
        return sum(self.scores.values()) / self.n

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean, sample deviation over the root of n; None for a single item."""
        if self.n < 2:
            return None
        variance = sum((score - self.mean) ** 2 for score in self.scores.values()) / (self.n - 1)
        return math.sqrt(variance / self.n)


def read_results(path: Path | str) -> tuple[TaskScore, ...]:
    """The scores of a results file, or of the newest one under a folder, in the file's order.

    A value that is no finite number (NaN, `N/A`) is no score and is left out.

    Raises:
        DataError: there is no such file, or it is none of lm-eval's.
    """
    file = _newest(Path(path), "results", ".json")
    whole = _json(file.read_text, file)
    results = whole.get("results") if isinstance(whole, dict) else None
    if not isinstance(results, dict):
        raise DataError("no results of lm-eval: it has no `results`", where=str(file), fix=ADVICE)
    groups = whole.get("groups") if isinstance(whole.get("groups"), dict) else {}
    scores = [
        score
        for task, row in results.items()
        if isinstance(row, dict)
        for score in _task(task, row, whole, task in groups)
    ]
    if not scores:
        raise DataError("no score in its `results`", where=str(file), fix=ADVICE)
    return tuple(scores)


def read_samples(path: Path | str) -> tuple[SampleScores, ...]:
    """The item scores of a samples file, written with `--log_samples`: one entry per metric and filter.

    Metrics that are not one number per item, such as perplexities, are left out.

    Raises:
        DataError: there is no such file, a line is not one of lm-eval's, or an item is there twice.
    """
    path = Path(path)
    named = re.fullmatch(r"samples_(.+?)(?:_\d{4}-\d{2}-\d{2}T[\d\-.:]+)?\.jsonl", path.name)
    if not path.is_file() or named is None:
        fix = "name a samples_TASK_*.jsonl that lm_eval wrote with --log_samples"
        raise DataError("no such file of samples", where=str(path), fix=fix)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for where, row in _lines(path):
        if "doc_id" not in row:
            raise DataError("no sample of lm-eval: it has no doc_id", where=where)
        for metric in _metrics(row):
            scores = found.setdefault((metric, str(row.get("filter", "none"))), {})
            if str(row["doc_id"]) in scores:
                raise DataError(f"item {row['doc_id']} is there twice", where=where)
            scores[str(row["doc_id"])] = float(row[metric])
    if not found:
        raise DataError("no sample has a score that is a number", where=str(path))
    return tuple(SampleScores(named[1], *key, scores) for key, scores in found.items())


def _task(task: str, row: Mapping[str, Any], whole: Mapping[str, Any], group: bool) -> Iterator[TaskScore]:
    counts = _mapping(_mapping(whole, "n-samples"), task)
    better = _mapping(_mapping(whole, "higher_is_better"), task)
    version = _mapping(whole, "versions").get(task)
    for key, value in row.items():
        metric, _, filter_ = key.partition(",")
        if metric.endswith("_stderr") or not _is_number(value) or key == "sample_len":
            continue
        stderr = row.get(f"{metric}_stderr,{filter_}" if filter_ else f"{metric}_stderr")
        n = counts.get("effective", _mapping(row, "sample_count").get(key, row.get("sample_len")))
        direction = better.get(metric)
        yield TaskScore(
            task=task,
            metric=metric,
            filter=filter_ or "none",
            value=float(value),
            stderr=float(stderr) if stderr is not None and _is_number(stderr) else None,
            n=n if type(n) is int else None,
            higher_is_better=direction if isinstance(direction, bool) else None,
            version=None if version is None else str(version),
            group=group,
        )


def _metrics(row: Mapping[str, Any]) -> list[str]:
    """Names of the metrics of a sample: `metrics` lists them; before 0.4.5 they stood at the end."""
    listed = row.get("metrics")
    if isinstance(listed, list):
        return [name for name in listed if isinstance(name, str) and _is_number(row.get(name))]
    own = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter")
    return [name for name, value in row.items() if name not in own and _is_number(value)]


def _newest(path: Path, kind: str, suffix: str) -> Path:
    if path.is_file():
        return path
    files = sorted(path.rglob(f"{kind}_*{suffix}"), key=lambda file: file.name) if path.is_dir() else []
    if not files:
        found = f"no {kind}_*{suffix} in this folder" if path.is_dir() else "no such file or folder"
        raise DataError(found, where=str(path), fix=ADVICE)
    return files[-1]  # lm-eval puts the time into the name


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            row = _json(lambda encoding, line=line: line, where)
            if not isinstance(row, dict):
                raise DataError("not a JSON object", where=where)
            yield where, row


def _json(read: Any, where: Path | str) -> Any:
    try:
        return json.loads(read(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read as JSON: {error}", where=str(where), fix=ADVICE) from None


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
