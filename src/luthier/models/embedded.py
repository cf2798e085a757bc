"""The embedded model: a GGUF file from a pinned asset, dequantised once into cached safetensors."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path

import filelock
import torch

from luthier import assets
from luthier.errors import ModelError

EMBEDDED = ("smollm2-135m",)
HUB_IDS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # the same model elsewhere
CONVERSION = 1  # raise when the conversion changes, so that older cached folders are not used


def embedded_folder(name: str) -> Path:
    """The Transformers folder of an embedded model, converted on first use.

    Raises:
        AssetError: the asset cannot be fetched or the cache cannot be written.
        ModelError: the GGUF file cannot be read.
    """
    asset = assets.ASSETS[name]
    folder = assets.cache_folder() / "models" / f"{name}-{asset.sha256[:12]}-v{CONVERSION}"
    if (folder / "config.json").is_file():
        return folder
    source = assets.fetch(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not (folder / "config.json").is_file():
            (gguf,) = source.rglob("*.gguf")
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                converted = Path(temporary) / "model"
                _convert(gguf, converted)
                shutil.rmtree(folder, ignore_errors=True)
                converted.rename(folder)
    return folder


def _convert(gguf: Path, into: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from luthier.models.load import quiet_transformers

    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise ModelError(f"the GGUF file cannot be read: {error}", where=str(gguf)) from error
        # A model read from GGUF refuses to be saved while it is marked as quantised: its weights are not.
        config = copy.deepcopy(read.config)
        del config.quantization_config
        config._name_or_path = ""
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(read.state_dict(), strict=True)
        plain.generation_config = read.generation_config
        plain.save_pretrained(into)
        tokenizer.save_pretrained(into)
