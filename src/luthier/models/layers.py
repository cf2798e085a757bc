"""The layers of a decoder, and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier.errors import ModelError


def block_list(base: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """The list of a model's layers, and its name in the model, such as `model.layers`.

    Raises:
        ModelError: the model keeps them in another way.
    """
    count = base.config.get_text_config().num_hidden_layers
    for name, module in base.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(
        f"the layers of {type(base).__name__} are not found", fix="leave out `layers` of `adapter`"
    )


def chosen_layers(base: PreTrainedModel, asked: str | Sequence[int]) -> list[int] | None:
    """Numbers of the layers to train, from 0; None stands for everything.

    Args:
        asked: `all`, `last 10`, `4-9`, or numbers, as a recipe says it.

    Raises:
        ModelError: the model has no such layer.
    """
    if asked == "all":
        return None
    count = len(block_list(base)[1])
    if not isinstance(asked, str):
        layers = sorted(asked)
    elif asked.startswith("last "):
        layers = list(range(count - int(asked.removeprefix("last ")), count))
    else:
        first, last = map(int, asked.split("-"))
        layers = list(range(first, last + 1))
    if not layers or layers[0] < 0 or layers[-1] >= count:
        shown = asked if isinstance(asked, str) else list(asked)
        raise ModelError(
            f"adapter.layers: no layers {shown} in a model of {count}",
            fix=f"they are numbered 0 to {count - 1}",
        )
    return layers


def linear_names(base: PreTrainedModel) -> list[str]:
    """Last names of the linear layers inside the model's layers, such as `q_proj`.

    ALBERT's layers are one layer, many times: then all of what reads the text is looked at.
    """
    inside: torch.nn.Module
    try:
        _, inside = block_list(base)
    except ModelError:
        inside = base.base_model
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in inside.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and not name.startswith("pooler")
        }
    )
