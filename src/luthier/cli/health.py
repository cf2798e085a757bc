"""`luthier doctor`: what is installed, fetched and missing, with the command that brings it."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

from rich.table import Table

from luthier import __version__, assets
from luthier.cli.screen import Screen, console

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "scikit-learn",
    "scipy",
    "bm25s",
    "rensa",
    "sacrebleu",
    "pip",
)


def print_health(*, fetch: bool) -> None:
    """Print the report; with `fetch`, first bring the assets that are missing."""
    if fetch:
        _fetch_all()
    table = Table(title="Luthier", title_justify="left", show_header=False, pad_edge=False)
    table.add_row("luthier", __version__)
    table.add_row("python", f"{platform.python_version()} ({sys.executable})")
    for package in PACKAGES:
        table.add_row(package, _version(package))
    table.add_row("cache", str(assets.cache_folder()))
    for name, asset in assets.ASSETS.items():
        there = assets.is_fetched(name)
        size = f"{asset.download_bytes / 1e6:.0f} MB"
        state = (
            "[green]fetched[/green]"
            if there
            else f"[yellow]missing[/yellow] ({size}): luthier doctor --fetch"
        )
        table.add_row(f"asset {name}", f"{state}\n[dim]{asset.content}[/dim]")
    for what, value in _hardware():
        table.add_row(what, value)
    console.print(table)


def _fetch_all() -> None:
    from luthier.models.embedded import EMBEDDED, embedded_folder

    show = Screen()
    for name, asset in assets.ASSETS.items():
        if not assets.is_fetched(name):
            with show.task(f"fetching {name} ({asset.download_bytes / 1e6:.0f} MB)", None):
                assets.fetch(name)
    for name in EMBEDDED:
        with show.task(f"preparing {name}", None):
            embedded_folder(name)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return f"[red]missing[/red]: {sys.executable} -m pip install {package}"


def _hardware() -> list[tuple[str, str]]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    rows = [
        ("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"),
        ("instructions", torch.backends.cpu.get_cpu_capability()),
        ("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"),
    ]
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        rows.append(("gpu", f"{torch.cuda.get_device_name()}, {total / 2**30:.0f} GiB"))
    else:
        rows.append(("gpu", "none that torch can use: Luthier works on the CPU"))
    return rows
