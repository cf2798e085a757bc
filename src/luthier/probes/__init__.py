"""Probes: what tuning may have cost, measured on base and tuned alike."""

from luthier.probes.finding import Finding, judge_loss
from luthier.probes.forgetting import base_forgetting, option_logprobs, report_forgetting
from luthier.probes.own_text import base_own_text, own_text_nll, report_own_text
from luthier.probes.suites import ChoiceItem, choice_items

__all__ = [
    "ChoiceItem",
    "Finding",
    "base_forgetting",
    "base_own_text",
    "choice_items",
    "judge_loss",
    "option_logprobs",
    "own_text_nll",
    "report_forgetting",
    "report_own_text",
]
