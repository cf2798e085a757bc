"""Adapters in PEFT's format: attach, save, load, merge."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from luthier.errors import ModelError
from luthier.models.load import LoadedModel, quiet_transformers
from luthier.models.lora_linear import fuse
from luthier.recipe import Adapter
from luthier.record import replace_folder


def attach_adapter(loaded: LoadedModel, adapter: Adapter, *, seed: int) -> PeftModel:
    """Put a fresh, trainable adapter on every linear layer of the model but the head.

    LoRA (arXiv 2106.09685): W x + (alpha / rank) B A x with A random, B zero, so that training
    starts at the base model. Adapter weights are fp32 whatever the base is held in.
    """
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT adapts to GPT-2's Conv1D by itself
        torch.manual_seed(seed)
        model = get_peft_model(loaded.model, fuse(config))
    assert isinstance(model, PeftModel)
    return model


def save_adapter(model: PeftModel, tokenizer: Tokenizer, folder: Path, *, base_name: str) -> None:
    """Write adapter, configuration and tokenizer (with its chat template), in one atomic step.

    Args:
        base_name: what `adapter_config.json` names as the base: a hub id, or a folder.
    """
    temporary = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT looks for the base on the hub to compare vocabularies
        model.save_pretrained(str(temporary), save_embedding_layers=False)
    tokenizer.save_pretrained(str(temporary))
    config_file = temporary / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (temporary / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the run's card.md is the card
    replace_folder(temporary, folder)


def load_adapter(loaded: LoadedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on a freshly loaded base model, for evaluation.

    Raises:
        ModelError: no adapter there, or it does not fit the model.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ModelError("no adapter in this folder", where=str(folder), fix="train first: luthier train RUN")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = PeftModel.from_pretrained(loaded.model, str(folder), is_trainable=False)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
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
    model.eval()
    assert isinstance(model, PeftModel)
    return model


def export_merged(loaded: LoadedModel, adapter: Path, into: Path) -> None:
    """Write base and adapter as one Transformers folder, with tokenizer and chat template.

    The sum is taken in fp32, and saved in the dtype the base was loaded in.
    """
    dtype = loaded.model.dtype
    loaded.model.float()
    merged = load_adapter(loaded, adapter).merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    temporary = into.with_name(f".{into.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        merged.to(dtype=dtype)  # type: ignore[call-arg]
        merged.save_pretrained(str(temporary))
        loaded.tokenizer.save_pretrained(str(temporary))
    replace_folder(temporary, into)
