"""Results of base models, kept in the cache: a base is not measured twice for the same question."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from luthier import assets
from luthier.recipe import digest
from luthier.record import write_json


def kept(name: str, inputs: dict[str, Any], compute: Callable[[], Any]) -> Any:
    """The JSON value that `compute` gives for `inputs`, from the cache when it is there.

    Torch's version and the kind of device are part of the key: they can change the last digits.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    key = digest([name, inputs, torch.__version__, device])
    path = assets.cache_folder() / "base-results" / f"{name}-{key[:24]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = compute()
        write_json(path, value)
        return value
