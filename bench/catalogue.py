"""All workloads that can be run, by name: one module per family."""

from __future__ import annotations

from bench import (
    int8_base,
    w1_varied,
    w2_shared_prefix,
    w3_preferences,
    w4_rollouts,
    w5_sweep,
    w6_answers,
    w8_startup,
)
from bench.workload import Workload

_FAMILIES = (
    w1_varied.WORKLOADS,
    w2_shared_prefix.WORKLOADS,
    w3_preferences.WORKLOADS,
    w4_rollouts.WORKLOADS,
    w5_sweep.WORKLOADS,
    w6_answers.WORKLOADS,
    w8_startup.WORKLOADS,
    int8_base.WORKLOADS if int8_base.is_offered() else (),
)
# w1, w2a, ... in order; what is approximate comes last
WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in sorted(
        (workload for family in _FAMILIES for workload in family),
        key=lambda workload: ("int8" in workload.name, workload.name),
    )
}
