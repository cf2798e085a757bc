"""Intervals, paired tests, power, calibration and abstention for scores of held-out examples.

Undefined is None with a reason.
"""

from luthier.stats.abstention import RiskCoverage, risk_coverage
from luthier.stats.calibration import (
    Calibration,
    Temperature,
    fit_temperature,
    measure_calibration,
    scale_confidence,
    smooth_calibration_error,
)
from luthier.stats.intervals import Interval, clopper_pearson, mean_interval, wilson
from luthier.stats.margins import Standing, stand
from luthier.stats.paired import Comparison, compare, holm, non_inferior, one_sided_low
from luthier.stats.power import (
    design_effect,
    detectable_difference,
    detectable_loss,
    examples_needed,
    examples_to_rule_out,
    predicted_power,
)
from luthier.stats.risk_control import Abstention, Threshold, abstain, control_risk
from luthier.stats.sequential import Look, plan_looks
from luthier.stats.wins import Wins, win_rate

__all__ = [
    "Abstention",
    "Calibration",
    "Comparison",
    "Interval",
    "Look",
    "RiskCoverage",
    "Standing",
    "Temperature",
    "Threshold",
    "Wins",
    "abstain",
    "clopper_pearson",
    "compare",
    "control_risk",
    "design_effect",
    "detectable_difference",
    "detectable_loss",
    "examples_needed",
    "examples_to_rule_out",
    "fit_temperature",
    "holm",
    "mean_interval",
    "measure_calibration",
    "non_inferior",
    "one_sided_low",
    "plan_looks",
    "predicted_power",
    "risk_coverage",
    "scale_confidence",
    "smooth_calibration_error",
    "stand",
    "wilson",
    "win_rate",
]
