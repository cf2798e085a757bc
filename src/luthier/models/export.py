"""The tuned model as one Transformers folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from luthier.errors import ModelError
from luthier.models.adapter import is_whole_model, load_adapter
from luthier.models.head_files import save_whole
from luthier.models.load import LoadedModel, quiet_transformers
from luthier.record import replace_folder


def export_merged(loaded: LoadedModel, adapter: Path, into: Path) -> None:
    """Write base and adapter as one Transformers folder, with tokenizer and chat template.

    The sum is taken in fp32, and saved in the dtype the base was loaded in. A fully fine-tuned model is
    already such a folder, and is copied.

    Raises:
        ModelError: nothing was trained, or virtual tokens were, which are no weights of the model.
    """
    temporary = into.with_name(f".{into.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    if is_whole_model(adapter):
        shutil.copytree(adapter, temporary)
        replace_folder(temporary, into)
        return
    has_config = (adapter / "adapter_config.json").is_file()
    if has_config and PeftConfig.from_pretrained(str(adapter)).is_prompt_learning:
        raise ModelError(
            "a prefix or prompt cannot be merged: it is not a change of the model's weights",
            where=str(adapter),
            fix="serve the base model with the adapter folder, or train with `adapter: {kind: lora}`",
        )
    dtype = loaded.model.dtype
    loaded.model.float()
    tuned = load_adapter(loaded, adapter)
    assert isinstance(tuned, PeftModel)
    merged = tuned.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    with quiet_transformers():
        merged.to(dtype=dtype)  # type: ignore[call-arg]
        save_whole(merged, temporary)
        loaded.tokenizer.save_pretrained(str(temporary))
    replace_folder(temporary, into)
