"""What is trained: attached, saved, loaded. Adapters in PEFT's format, a whole model in Transformers'."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from luthier.errors import ModelError
from luthier.models.encoder import is_encoder, load_encoder
from luthier.models.head_files import SCORE, describe_head, restore_head, save_whole
from luthier.models.held import hold_base
from luthier.models.layers import block_list, chosen_layers, linear_names
from luthier.models.load import LoadedModel, load_model, quiet_transformers
from luthier.models.lora_linear import fuse
from luthier.models.virtual_tokens import refuse_misfit, start_from_text
from luthier.recipe import Adapter
from luthier.record import replace_folder

Model = PreTrainedModel | PeftModel


def attach_adapter(loaded: LoadedModel, adapter: Adapter, *, seed: int) -> Model:
    """Make a model trainable in the way asked for; its trainable parameters are fp32 and require gradients.

    - lora (arXiv 2106.09685): W x + (alpha / rank) B A x on every linear layer but the head, with A random
      and B zero, so that training starts at the base model. rslora (2312.03732) scales by alpha /
      sqrt(rank); dora (2402.09353) learns each output's magnitude apart.
    - prefix (2101.00190): keys and values before every sequence; prompt (2104.08691): embeddings there.
      They start as those of a short text, not at random.
    - full: the weights themselves. What comes back is the loaded model, all of it or the chosen layers
      unfrozen.

    Raises:
        ModelError: a layer that the model has not, or an architecture, package or hardware that cannot.
    """
    layers = chosen_layers(loaded.model, adapter.layers)
    if adapter.kind == "full":
        return _unfreeze(loaded.model, layers)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT adapts to GPT-2's Conv1D by itself
        torch.manual_seed(seed)
        model = get_peft_model(loaded.model, _config(loaded.model, adapter, layers))
    assert isinstance(model, PeftModel)
    if model.active_peft_config.is_prompt_learning:
        start_from_text(model, loaded.tokenizer)
    hold_base(loaded.model, adapter.base)
    return model


def save_adapter(model: Model, tokenizer: Tokenizer, folder: Path, *, base_name: str) -> None:
    """Write what was trained and the tokenizer (with its chat template), in one atomic step.

    An adapter is written in PEFT's format, a fully fine-tuned model in Transformers'; with a head that reads
    whole sequences both are a sequence classifier's (`head_files`).

    Args:
        base_name: what `adapter_config.json` names as the base: a hub id, or a folder.
    """
    temporary = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(model, PeftModel):
        _write_adapter(model, temporary, base_name)
    else:
        with quiet_transformers():
            save_whole(model, temporary)
    tokenizer.save_pretrained(str(temporary))
    replace_folder(temporary, folder)


def load_adapter(loaded: LoadedModel, folder: Path) -> Model:
    """The tuned model: a saved adapter on a freshly loaded base, or the whole model where one was saved.

    The head of a reward model or a classifier is where `attach_head` puts it; without an adapter such a model
    has a language-model head that means nothing.

    Raises:
        ModelError: nothing there, or the adapter does not fit the model.
    """
    if is_whole_model(folder):
        if is_encoder(loaded.model):
            return load_encoder(str(folder), device=str(loaded.device)).model
        with torch.random.fork_rng():  # a classifier's folder has no language-model head: it is drawn
            whole = load_model(str(folder), device=str(loaded.device)).model
        restore_head(whole, folder)
        return whole
    if not (folder / "adapter_config.json").is_file():
        raise ModelError("no adapter in this folder", where=str(folder), fix="train first: luthier train RUN")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            config = PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            if restore_head(loaded.model, folder):
                config.task_type, config.modules_to_save = "CAUSAL_LM", [SCORE]
            model = PeftModel.from_pretrained(
                loaded.model, str(folder), config=fuse(config) if isinstance(config, LoraConfig) else config
            )
            assert isinstance(model, PeftModel)
            if config.is_prompt_learning:
                refuse_misfit(model)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"the adapter does not fit the model: {error}", where=str(folder)) from error
    # PEFT passes over tensors that the model has no place for, and leaves the others at their start
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        missing = set(get_peft_model_state_dict(model, save_embedding_layers=False)) ^ set(file.keys())
    if missing:
        raise ModelError(
            f"the adapter does not fit the model: {len(missing)} tensors without a counterpart, "
            f"such as {min(missing)}",
            where=str(folder),
            fix="load it on the model it was trained on",
        )
    model.requires_grad_(False)
    model.eval()
    return model


def is_whole_model(folder: Path) -> bool:
    """Whether full fine-tuning was saved there: a model of its own, which needs no base."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def _config(base: PreTrainedModel, adapter: Adapter, layers: list[int] | None) -> PeftConfig:
    if adapter.kind == "prefix":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=adapter.virtual_tokens)
    if adapter.kind == "prompt":
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=adapter.virtual_tokens)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=0.0,
        use_rslora=adapter.kind == "rslora",
        use_dora=adapter.kind == "dora",
        # PEFT takes no layer numbers together with the word all-linear, and means an encoder's head by it too
        target_modules="all-linear" if layers is None and not is_encoder(base) else linear_names(base),
        layers_to_transform=layers,
        layers_pattern=None if layers is None else block_list(base)[0].rpartition(".")[2],
        # what lies between an encoder and its head may be as new as the head, which PEFT names by itself
        modules_to_save=["pooler"] if is_encoder(base) else None,
        task_type="SEQ_CLS" if is_encoder(base) else "CAUSAL_LM",
    )
    return fuse(config)


def _unfreeze(base: PreTrainedModel, layers: list[int] | None) -> PreTrainedModel:
    """All weights, or those of the chosen layers: then embeddings, last norm and head stay frozen too."""
    base.float()  # small steps vanish in the rounding of half precision
    if layers is None:
        base.requires_grad_(True)
    else:
        blocks = block_list(base)[1]
        for index in layers:
            blocks[index].requires_grad_(True)
    return base


def _write_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT looks for the base on the hub to compare vocabularies
        model.save_pretrained(str(folder), save_embedding_layers=False)
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base_name, **describe_head(model, folder)}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the run's card.md is the card
