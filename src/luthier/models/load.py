"""Load a causal language model and its tokenizer: embedded, from a folder, or from a hub."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from luthier import assets
from luthier.errors import ModelError
from luthier.models.embedded import EMBEDDED, embedded_folder
from luthier.models.norm import fuse_norms
from luthier.recipe import digest

SAMPLE_BYTES = 1 << 20
PLAUSIBLE_LIMIT = 10_000_000  # tokens; tokenizers say 1e30 where they know of none


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode and its tokenizer.

    Attributes:
        identity: a hash of what was loaded; equal identities give equal outputs.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    identity: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.get_input_embeddings().weight.device  # type: ignore[assignment]
        return device

    @property
    def stop_ids(self) -> frozenset[int]:
        """End-of-sequence ids that the model's generation config names."""
        config = self.model.generation_config
        ids = None if config is None else config.eos_token_id
        return frozenset([ids] if isinstance(ids, int) else ids or [])


def load_model(name: str, *, device: str | None = None) -> LoadedModel:
    """Load a model for training and scoring: fp32 on CPU, bf16 on an accelerator.

    Args:
        name: an embedded model's name, a local folder, or a hub id. Code that a model brings along
            is never run.
        device: a torch device; the first accelerator when there is one, else the CPU.

    Raises:
        ModelError: it cannot be found or read, or it is not a causal language model.
        AssetError: an embedded model cannot be fetched.
    """
    source = _source(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    with quiet_transformers(), _explained(name):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        _refuse_encoder(config, name)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
    model.eval()
    model.requires_grad_(False)
    model.to(device=torch.device(device))  # type: ignore[call-arg]
    fuse_norms(model)
    return LoadedModel(model, tokenizer, model_identity(name))


def reads_only(name: str) -> bool:
    """Whether a model is an encoder such as BERT, by its configuration alone; raises as `load_model`.

    Encoders were pre-trained on masked words. Decoders made of one, and encoders with a decoder, write.
    """
    if name in EMBEDDED:
        return False
    source = _source(name)
    with quiet_transformers(), _explained(name):
        return _is_encoder(AutoConfig.from_pretrained(source, trust_remote_code=False))


def load_tokenizer(name: str) -> Tokenizer:
    """Only the tokenizer of a model; raises as `load_model`."""
    source = _source(name)
    with quiet_transformers(), _explained(name):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def model_identity(name: str) -> str:
    """A hash that changes when the model's files change, without reading all of the weights.

    Small files count by content; of large ones the size and a sample from both ends count.
    """
    if name in EMBEDDED:
        return digest(["embedded", name, assets.ASSETS[name].sha256])
    folder = Path(name).expanduser()
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        return digest([[p.name, p.stat().st_size, _sample_hash(p)] for p in files])
    _source(name)  # a folder that is not there is told as such, not as a hub id that is malformed
    with quiet_transformers(), _explained(name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    return digest(["hub", name, getattr(config, "_commit_hash", None)])


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep Transformers' own progress bars and notices off the user's screen."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    verbosity = transformers.utils.logging.get_verbosity()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    hub.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        hub.setLevel(hub_level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _is_encoder(config: PreTrainedConfig) -> bool:
    writes = getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False)
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not writes


def _refuse_encoder(config: PreTrainedConfig, name: str) -> None:
    if _is_encoder(config):
        raise ModelError(
            f"{config.model_type} is an encoder: it reads whole texts and writes none",
            where=f"model {name}",
            fix="train it with `method: classify`, or name a decoder, such as smollm2-135m",
        )


def _source(name: str) -> str:
    if name in EMBEDDED:
        return str(embedded_folder(name))
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(
            "a folder without config.json is not a Transformers model",
            where=str(folder),
            fix="name a folder written by save_pretrained, or a hub id",
        )
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise ModelError("no such model folder", where=name, fix="check the path given as `model:`")
    return str(folder) if folder.is_dir() else name


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        offline = (
            os.environ.get("HF_HUB_OFFLINE") or "not found" in str(error) or "connect" in str(error).lower()
        )
        fix = (
            "use the embedded model smollm2-135m, a local folder, or a hub id that this machine can reach"
            if offline
            else "check that it is a causal language model written by save_pretrained"
        )
        raise ModelError(f"cannot be loaded: {first[:300]}", where=f"model {name}", fix=fix) from error


def _sample_hash(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        file.seek(max(0, size - SAMPLE_BYTES))
        return hashlib.sha256(head + file.read(SAMPLE_BYTES)).hexdigest()
