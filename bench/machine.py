"""What a measurement was made on: processor, versions, load."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("luthier", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "lm-eval")


def describe_machine() -> dict[str, str]:
    """Processor, system and versions, without anything that names the machine or its folders."""
    facts = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "from source"
    return facts


def load_average() -> float:
    """Processes that wanted to run during the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    facts = dict.fromkeys(("model name", "cpu family", "model"), "")
    for line in info.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in facts and not facts[name.strip()]:
            facts[name.strip()] = value.strip()
    if not facts["model name"]:
        return platform.machine()
    return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
