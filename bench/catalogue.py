"""All workloads that can be run, by name: one module per family."""

from __future__ import annotations

from bench import w2_shared_prefix
from bench.workload import SftWorkload

SFT: dict[str, SftWorkload] = {**w2_shared_prefix.WORKLOADS}
