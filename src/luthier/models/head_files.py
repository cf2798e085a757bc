"""Models with a head, as files that PEFT and Transformers load as sequence classifiers.

An adapter's folder is PEFT's, with `score` among `modules_to_save` and the task SEQ_CLS; the labels are in
`labels.json` beside it. A whole model's is that of `AutoModelForSequenceClassification`, labels and all. The
value head of a policy is not saved: it is of use to its training alone, whose checkpoints have it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel

from luthier.models.encoder import is_encoder
from luthier.models.heads import (
    NAMES,
    classifier_twin,
    find_head,
    labels_of,
    name_labels,
    place_head,
)
from luthier.record import write_json

SCORE = NAMES["sequence"]
LABELS = "labels.json"
KEYS = tuple(f"{prefix}{SCORE}.weight" for prefix in ("", "base_model.model.", "base_model."))


def save_whole(model: PreTrainedModel, folder: Path) -> None:
    """Write a model without an adapter, as a sequence classifier where it has such a head."""
    unsaved = f"{NAMES['tokens']}."
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(unsaved)}
    head = find_head(model, "sequence")
    if head is None:
        model.save_pretrained(str(folder), state_dict=state)
        return
    twin = classifier_twin(model, len(labels_of(model)))
    wanted = twin.state_dict().keys()
    twin.load_state_dict({name: state[name] for name in wanted}, strict=True, assign=True)
    twin.save_pretrained(str(folder))


def describe_head(model: PeftModel, folder: Path) -> dict[str, Any]:
    """What `adapter_config.json` says beside of an adapter with a head; writes its labels."""
    encoder = is_encoder(model)
    if find_head(model, "sequence") is None and not encoder:
        return {}
    write_json(folder / LABELS, list(labels_of(model)))
    return {} if encoder else {"task_type": "SEQ_CLS", "modules_to_save": [SCORE]}


def restore_head(base: PreTrainedModel, folder: Path) -> bool:
    """Give a model the frozen head that was saved in a folder; returns whether there is one.

    Call it before PEFT loads an adapter from there, which then finds the place of its own copy.
    """
    weight = _saved_weight(folder)
    if weight is None:
        return False
    layer = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    layer.requires_grad_(False)
    name_labels(base, saved_labels(folder))
    place_head(base, "sequence", layer)
    return True


def saved_labels(folder: Path) -> tuple[str, ...]:
    """What the outputs of the head that was saved in a folder stand for, in order."""
    if (folder / LABELS).is_file():
        return tuple(json.loads((folder / LABELS).read_text(encoding="utf-8")))
    named = AutoConfig.from_pretrained(str(folder), trust_remote_code=False).id2label
    return tuple(label for _, label in sorted(named.items()))


def find_labels(folder: Path) -> tuple[str, ...]:
    """`saved_labels` of an adapter's folder; none where nothing is saved."""
    return saved_labels(folder) if (folder / LABELS).is_file() else ()


def _saved_weight(folder: Path) -> torch.Tensor | None:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for key in sorted(set(KEYS) & set(tensors.keys())):
                weight: torch.Tensor = tensors.get_tensor(key)
                return weight.float()
    return None
