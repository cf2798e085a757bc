"""The int8 base, approximate and opt-in, against Luthier's own exact fp32."""

from __future__ import annotations

from bench import w1_varied, w2_shared_prefix
from bench.workload import Goal, Int8Workload
from luthier.recipe import Adapter

OF = (w1_varied.WORKLOADS[0], w2_shared_prefix.WORKLOADS[0])
WORKLOADS = tuple(
    Int8Workload(f"{of.name}-int8", f"{of.name.upper()} on an int8 base, approximate", Goal(speed=1.6), of)
    for of in OF
)


def is_offered() -> bool:
    """Whether this version of Luthier can hold the base in int8."""
    return "base" in Adapter.model_fields
