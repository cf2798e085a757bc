"""Heads beside the language model's: numbers for a whole sequence, or a value for each token.

Legend: D width, K outputs.

A head is a linear map of hidden states, and a submodule of the model, so that what trains, checkpoints and
resumes parameters takes it along:

    sequence  `score`, D -> K without a bias, at the last token: a reward (K = 1), or the logits of K labels.
              Name, shape and start are those of Transformers' ...ForSequenceClassification.
    tokens    `value_head`, D -> 1 with a bias, before every token: what PPO expects to come. Starts at 0.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from luthier.errors import ModelError
from luthier.models.encoder import is_encoder
from luthier.models.load import quiet_transformers

if TYPE_CHECKING:
    from luthier.models.adapter import Model

HeadKind = Literal["sequence", "tokens"]
NAMES: dict[HeadKind, str] = {"sequence": "score", "tokens": "value_head"}


class Reader(Protocol):
    """What reads a head: a training method."""

    @property
    def head(self) -> HeadKind | None:
        """Which head; None where it reads none."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What each output of a `sequence` head stands for; empty for a reward."""
        ...


def attach_head(model: Model, reader: Reader, *, seed: int) -> None:
    """Give a model the head that a method reads, trainable and fp32; nothing where it reads none.

    An encoder has a `sequence` head of its own, whose labels have to be the method's (`load_encoder`). What
    else is trained (an adapter, the weights themselves) has to be attached before. A `sequence` head starts
    at N(0, initializer_range) as in Transformers, drawn by `seed`; a `tokens` head at 0. The labels are kept
    in the model's configuration.

    Raises:
        ModelError: it has such a head already, or Transformers has no sequence classifier of this
            architecture, so that nothing could load what is saved.
    """
    kind = reader.head
    if kind is None:
        return
    base = inner_model(model)
    if kind == "sequence" and is_encoder(base):
        if labels_of(base) != reader.labels:
            raise ModelError("the encoder was loaded with other labels", fix="load it with these labels")
        return
    if find_head(model, kind) is not None:
        raise ModelError(f"the model has a {NAMES[kind]} already", fix="load it afresh")
    width, outputs = _width(base), max(1, len(reader.labels))
    layer = torch.nn.utils.skip_init(torch.nn.Linear, width, outputs, bias=kind == "tokens")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        if kind == "sequence":
            classifier_twin(base, outputs)
            name_labels(base, reader.labels)
            std = getattr(base.config.get_text_config(), "initializer_range", None) or 0.02
            start = torch.Generator().manual_seed(seed)
            layer.weight.copy_(torch.randn(outputs, width, generator=start) * std)
    place_head(model, kind, layer)


def place_head(model: Model, kind: HeadKind, layer: torch.nn.Linear) -> None:
    """Make a layer the model's head; PEFT then saves and loads a `sequence` head with its adapter."""
    base = inner_model(model)
    module: torch.nn.Module = layer.to(base.get_input_embeddings().weight.device)  # type: ignore[arg-type]
    if isinstance(model, PeftModel) and kind == "sequence":
        name = model.active_adapter
        module = ModulesToSaveWrapper(module, name)
        module.set_adapter(name)
        model.active_peft_config.modules_to_save = [NAMES[kind]]
    base.add_module(NAMES[kind], module)


def find_head(model: Model, kind: HeadKind) -> torch.nn.Module | None:
    """The model's head of this kind, or None."""
    head: torch.nn.Module | None = getattr(inner_model(model), NAMES[kind], None)
    return head


def detach_head(model: Model, kind: HeadKind) -> None:
    """Take a head away, as the value head of a policy that is trained; without one, nothing happens."""
    if find_head(model, kind) is None:
        return
    delattr(inner_model(model), NAMES[kind])
    if isinstance(model, PeftModel) and kind == "sequence":
        model.active_peft_config.modules_to_save = None


def read_head(model: Model, kind: HeadKind, states: torch.Tensor) -> torch.Tensor:
    """The head's outputs `[N, K]` for hidden states `[N, D]`, in the head's dtype (float32).

    Raises:
        ModelError: the model has no such head.
    """
    head = find_head(model, kind)
    if head is None:
        raise ModelError(
            f"the model has no {NAMES[kind]}, which this method reads",
            fix="attach one (`attach_head`), or load the folder of a model that was trained with one",
        )
    values: torch.Tensor = head(states.to(next(head.parameters()).dtype))
    return values


def pooled_token(model: Model, ids: Sequence[int]) -> int:
    """Which token of a sequence a `sequence` head is read at.

    The last one that is not the padding token of the model's configuration: Transformers' classifiers look
    there, also where a model ends its answers with the token that it pads with.
    """
    pad = getattr(inner_model(model).config.get_text_config(), "pad_token_id", None)
    return next((t for t in reversed(range(len(ids))) if ids[t] != pad), 0)


def labels_of(model: Model) -> tuple[str, ...]:
    """What the outputs of the `sequence` head stand for, in order."""
    named = inner_model(model).config.id2label or {}
    return tuple(label for _, label in sorted(named.items()))


def name_labels(base: PreTrainedModel, labels: Sequence[str]) -> None:
    """Write the labels of a `sequence` head into the configuration; a reward's one output has none."""
    named = dict(enumerate(labels)) or {0: "reward"}
    base.config.id2label = named
    base.config.label2id = {label: i for i, label in named.items()}


def classifier_twin(base: PreTrainedModel, outputs: int) -> PreTrainedModel:
    """Transformers' sequence classifier of the same architecture, without weights (on the meta device).

    Raises:
        ModelError: there is none, or its head or its names are others than ours.
    """
    config = copy.deepcopy(base.config)
    config.num_labels = outputs
    try:
        with torch.random.fork_rng(), torch.device("meta"), quiet_transformers():
            twin = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise _without_classifier(base) from error
    score = getattr(twin, NAMES["sequence"], None)
    unbiased = getattr(score, "bias", None) is None
    plain = type(score) is torch.nn.Linear and unbiased and score.in_features == _width(base)
    if not plain or twin.base_model_prefix != base.base_model_prefix:
        raise _without_classifier(base)
    assert isinstance(twin, PreTrainedModel)
    return twin


def inner_model(model: Model) -> PreTrainedModel:
    """The Transformers model that carries the heads."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def _width(base: PreTrainedModel) -> int:
    """D: of the states that the language-model head is given."""
    head = base.get_output_embeddings()
    if head is None:
        raise _without_classifier(base)
    return int(head.weight.shape[1])


def _without_classifier(base: PreTrainedModel) -> ModelError:
    return ModelError(
        f"Transformers has no sequence classifier that is a linear map on {type(base).__name__}'s last state",
        fix="use a decoder such as Llama, Qwen, Gemma, Mistral or GPT-2",
    )
