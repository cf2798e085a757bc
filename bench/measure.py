"""One workload to its result."""

from __future__ import annotations

from bench.answering import compare_scores, compare_writing
from bench.sides import Comparison, Options
from bench.startup import Startup, time_startup
from bench.sweeping import compare_sweeps
from bench.training import compare_bases, compare_training
from bench.workload import (
    ChoiceWorkload,
    Int8Workload,
    StartupWorkload,
    SweepWorkload,
    TrainingWorkload,
    Workload,
    WritingWorkload,
)

Result = Comparison | Startup


def measure(workload: Workload, options: Options) -> Result:
    """Measure one workload.

    Raises:
        BenchError: a gate fails or a worker dies.
    """
    match workload:
        case TrainingWorkload():
            return compare_training(workload, options)
        case SweepWorkload():
            return compare_sweeps(workload, options)
        case Int8Workload():
            return compare_bases(workload, options)
        case ChoiceWorkload():
            return compare_scores(workload, options)
        case WritingWorkload():
            return compare_writing(workload, options)
        case StartupWorkload():
            return time_startup(workload, options)
    raise TypeError(f"nothing measures a {type(workload).__name__}")
