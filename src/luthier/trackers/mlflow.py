"""MLflow: the store that MLFLOW_TRACKING_URI names, else a database in the run folder."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.trackers.tracker import PROJECT

if TYPE_CHECKING:
    from luthier.trackers.tracker import Plain

TAG = "luthier.run"
BATCH = 100  # parameters that the server takes at once
LONGEST = 500  # characters of a parameter's value, by the strictest stores


class MLflow:
    """One run of the experiment `luthier`, or of the one that MLFLOW_EXPERIMENT_NAME names."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity
        self._client: Any = None
        self._run = ""

    def start(self, run_name: str, config: Mapping[str, Plain]) -> str:
        """Make the run, or find it; the configuration becomes its parameters."""
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if address is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{(self._folder / 'mlflow.db').resolve().as_posix()}"
        with _quiet("mlflow", "alembic"):
            from mlflow import MlflowClient
            from mlflow.entities import Param

            self._client = MlflowClient(tracking_uri=address)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._experiment(name)
            found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{self._identity}'")
            if found:
                self._run = found[0].info.run_id
                self._client.update_run(self._run, status="RUNNING")
            else:
                made = self._client.create_run(experiment, run_name=run_name, tags={TAG: self._identity})
                self._run = made.info.run_id
                pairs = iter(config.items())
                while part := list(itertools.islice(pairs, BATCH)):
                    shown = [Param(key, str(value)[:LONGEST]) for key, value in part]
                    self._client.log_batch(self._run, params=shown)
        if "MLFLOW_TRACKING_URI" in os.environ:
            return f"experiment {name} of the store in MLFLOW_TRACKING_URI"
        return f"mlflow ui --backend-store-uri {address}"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Each number is a metric."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, *, done: bool) -> None:
        """Mark the run as finished, or as killed: it may be gone on with."""
        self._client.set_terminated(self._run, status="FINISHED" if done else "KILLED")

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        own = "MLFLOW_TRACKING_URI" not in os.environ
        place = (self._folder / "artifacts").resolve().as_uri() if own else None
        return str(self._client.create_experiment(name, artifact_location=place))


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """A new database is reported in twenty lines otherwise."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
