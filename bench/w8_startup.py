"""W8: how long a newcomer waits for the first screen."""

from __future__ import annotations

from bench.workload import Goal, StartupWorkload

WORKLOADS = (StartupWorkload("w8", "start-up: `luthier --help`", Goal(speed=1.0), 0.4),)
