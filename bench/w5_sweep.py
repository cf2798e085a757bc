"""W5: which of eight learning rates is best? The demo's support tickets behind the demo's own system prompt.

Two decades around what `learning_rate: auto` gives this model. One epoch, so that both sides can have the
same batches in the same order.
"""

from __future__ import annotations

from bench.peers import TrlSettings
from bench.workload import Goal, SweepWorkload

RATES = (1e-4, 1.93e-4, 3.73e-4, 7.2e-4, 1.39e-3, 2.68e-3, 5.18e-3, 1e-2)

WORKLOADS = (
    SweepWorkload(
        "w5",
        "sweep of 8 learning rates to the same validation loss",
        Goal(speed=8.0),
        RATES,
        40,
        4,
        32,
        (TrlSettings(4), TrlSettings(2), TrlSettings(1), TrlSettings(4, "free")),
    ),
)
