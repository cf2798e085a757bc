"""Probes: what tuning may have cost, measured on base and tuned alike."""

from luthier.probes.bias import measure_bias, report_bias
from luthier.probes.canaries import Canary, canaries, canary_sequences
from luthier.probes.change import failed_report
from luthier.probes.divergence import measure_kl, report_kl
from luthier.probes.facts import measure_facts, report_facts
from luthier.probes.finding import Finding, judge_loss
from luthier.probes.forgetting import base_forgetting, option_logprobs, report_forgetting
from luthier.probes.memorization import measure_memorization, report_memorization
from luthier.probes.overfitting import measure_overfitting, report_overfitting
from luthier.probes.own_text import base_own_text, own_text_nll, report_own_text
from luthier.probes.refusal import measure_refusal, report_refusal
from luthier.probes.robustness import measure_robustness, report_robustness
from luthier.probes.subjects import Evidence, Side, Subjects, Which
from luthier.probes.suites import ChoiceItem, choice_items

__all__ = [
    "Canary",
    "ChoiceItem",
    "Evidence",
    "Finding",
    "Side",
    "Subjects",
    "Which",
    "base_forgetting",
    "base_own_text",
    "canaries",
    "canary_sequences",
    "choice_items",
    "failed_report",
    "judge_loss",
    "measure_bias",
    "measure_facts",
    "measure_kl",
    "measure_memorization",
    "measure_overfitting",
    "measure_refusal",
    "measure_robustness",
    "option_logprobs",
    "own_text_nll",
    "report_bias",
    "report_facts",
    "report_forgetting",
    "report_kl",
    "report_memorization",
    "report_overfitting",
    "report_own_text",
    "report_refusal",
    "report_robustness",
]
