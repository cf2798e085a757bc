"""Intervals, paired tests and power for scores of held-out examples. Undefined is None with a reason."""

from luthier.stats.intervals import Interval, mean_interval, wilson
from luthier.stats.paired import Comparison, compare, holm, non_inferior, one_sided_low
from luthier.stats.power import (
    detectable_difference,
    detectable_loss,
    examples_needed,
    examples_to_rule_out,
)

__all__ = [
    "Comparison",
    "Interval",
    "compare",
    "detectable_difference",
    "detectable_loss",
    "examples_needed",
    "examples_to_rule_out",
    "holm",
    "mean_interval",
    "non_inferior",
    "one_sided_low",
    "wilson",
]
