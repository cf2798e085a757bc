"""Models: load, adapt, save, export."""

from luthier.models.adapter import attach_adapter, export_merged, load_adapter, save_adapter
from luthier.models.load import LoadedModel, load_model, model_identity

__all__ = [
    "LoadedModel",
    "attach_adapter",
    "export_merged",
    "load_adapter",
    "load_model",
    "model_identity",
    "save_adapter",
]
