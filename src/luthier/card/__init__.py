"""The model card and the HTML report: views of the run folder, which they only read."""

from luthier.card.model_card import write_card
from luthier.card.report import write_report

__all__ = ["write_card", "write_report"]
