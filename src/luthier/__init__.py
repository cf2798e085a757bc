"""Luthier: from a file of examples to a decision about fine-tuning."""

__version__ = "0.1.0"
