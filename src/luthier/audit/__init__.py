"""Faults in the examples, found before training: one file per check."""

from luthier.audit.checks import CHECKS, Audit, audit_examples
from luthier.audit.finding import Finding

__all__ = ["CHECKS", "Audit", "Finding", "audit_examples"]
