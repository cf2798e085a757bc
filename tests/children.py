"""Real processes for tests: forked from a server that has imported what is slow to import."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

IMPORTED = (
    "pytest",
    "transformers.models.llama.modeling_llama",
    "luthier.methods",
    "luthier.models",
    "luthier.train",
)


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call a function of an importable module in a process of its own."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(list(IMPORTED))  # only heeded before the first process
    process = processes.Process(target=target, args=arguments)
    process.start()
    return process
