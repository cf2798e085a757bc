"""Models: load, adapt, save, export."""

from luthier.models.adapter import Model, attach_adapter, is_whole_model, load_adapter, save_adapter
from luthier.models.export import export_merged
from luthier.models.load import LoadedModel, load_model, model_identity

__all__ = [
    "LoadedModel",
    "Model",
    "attach_adapter",
    "export_merged",
    "is_whole_model",
    "load_adapter",
    "load_model",
    "model_identity",
    "save_adapter",
]
