"""Data sets of the Hugging Face hub: their data files, at one commit, and nothing that would be run.

A source is `hub:OWNER/NAME`, with `/CONFIG` after it where a data set has several, and `@SPLIT`. The commit
that its files were taken from is remembered, so that the same source is found again without a network.
The token is the hub's own (`HF_TOKEN`, or what `hf auth login` saved).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NoReturn

from luthier.assets import cache_folder
from luthier.errors import DataError
from luthier.examples.rows import kind_named
from luthier.record import write_json

HUB = "hub:"
FORM = "write hub:OWNER/NAME, or hub:OWNER/NAME@SPLIT"
_SOURCE = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w./-]+?))?(?:@(?P<split>[\w.-]+))?")
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
_TOLD = ("readme", "license", "dataset_info", "requirements")  # about the data, not of it


@dataclass(frozen=True)
class Fetched:
    """Files of a data set on this machine.

    Attributes:
        name: `hub:OWNER/NAME`.
        revision: the commit.
        files: where each is, by its path in the data set.
    """

    name: str
    revision: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class _Listing:
    """What a data set holds at a commit, and the configurations that its card declares."""

    revision: str
    files: tuple[str, ...]
    configs: tuple[Mapping[str, Any], ...]


def fetch_hub(source: str) -> Fetched:
    """Download the data files that a source names; those already here are used as they are.

    Raises:
        DataError: it is not written as a source, the hub cannot be reached, there is no such data set or
            split, it may not be read, or it has several splits or configurations and none is named.
    """
    match = _parse(source)
    listing = _list(source, match["repo"])
    chosen = _choose(listing, match["config"], match["split"], source)
    files = {name: _download(source, match["repo"], name, listing.revision) for name in chosen}
    return Fetched(f"{HUB}{match['repo']}", listing.revision, files)


def hub_identity(source: str) -> list[str | None]:
    """What decides a source's content: the source and its commit, without downloading anything."""
    return [source, _list(source, _parse(source)["repo"]).revision]


def _parse(source: str) -> re.Match[str]:
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise DataError("is not a data set of the hub", where=source, fix=FORM)
    return match


def _list(source: str, repo: str) -> _Listing:
    """As the hub tells it; where it cannot be reached, as it was when last seen."""
    from huggingface_hub import HfApi

    memo = cache_folder() / "hub" / f"{repo.replace('/', '--')}.json"
    try:
        info = HfApi().dataset_info(repo)
    except Exception as error:
        if memo.is_file() and _is_network(error):
            known = json.loads(memo.read_text(encoding="utf-8"))
            return _Listing(known["revision"], tuple(known["files"]), tuple(known["configs"]))
        _explain(source, error)
    card: dict[str, Any] = dict(info.card_data.to_dict()) if info.card_data else {}  # type: ignore[no-untyped-call]
    configs = [c for c in card.get("configs") or [] if isinstance(c, dict) and c.get("data_files")]
    files = sorted(sibling.rfilename for sibling in info.siblings or [])
    listing = _Listing(str(info.sha), tuple(files), tuple(configs))
    told = {"revision": listing.revision, "files": files, "configs": configs}
    memo.parent.mkdir(parents=True, exist_ok=True)
    write_json(memo, told)
    return listing


def _download(source: str, repo: str, name: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
    except Exception as error:
        _explain(source, error)


def _is_network(error: Exception) -> bool:
    """Whether the hub gave no answer at all."""
    from huggingface_hub.errors import HfHubHTTPError

    answered = isinstance(error, HfHubHTTPError) and getattr(error, "response", None) is not None
    return not answered and not isinstance(error, ValueError)


def _explain(source: str, error: Exception) -> NoReturn:
    """The error of `huggingface_hub` as ours.

    Raises:
        DataError: always, where it is one that a user can act on; any other goes on as it is.
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        message, fix = "is gated", "accept its terms on the hub, and set HF_TOKEN"
    elif isinstance(error, RepositoryNotFoundError):
        message, fix = "no such data set, or a private one", "check the name; set HF_TOKEN if it is private"
    elif isinstance(error, HfHubHTTPError) and not _is_network(error):
        message, fix = f"the hub refused: {_first_line(error)}", "try again later, or check HF_TOKEN"
    elif isinstance(error, OSError | HTTPError):
        message = f"the hub cannot be reached ({_first_line(error)})"
        fix = "check the network and HF_ENDPOINT, or download the files and give their folder"
    elif isinstance(error, ValueError):
        message, fix = f"is not a data set of the hub: {_first_line(error)}", FORM
    else:
        raise error
    raise DataError(message, where=source, fix=fix) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _choose(listing: _Listing, config: str | None, split: str | None, source: str) -> list[str]:
    """The data files of a split: as the card declares them, else by their names."""
    data = [name for name in listing.files if _is_data(name)]
    if not data:
        raise DataError(
            "holds no data files", where=source, fix="give a data set of JSONL, CSV or Parquet files"
        )
    by_split = _declared(listing.configs, data, config, source) or _by_name(_below(data, config, source))
    if split is not None:
        wanted = next((key for key, words in _SPLITS.items() if split in words), split)
        if wanted not in by_split:
            known = ", ".join(filter(None, by_split)) or "none that its files' names tell"
            raise DataError(f"has no split {split!r}", where=source, fix=f"its splits: {known}")
        return by_split[wanted]
    if len(by_split) > 1:
        known = ", ".join(filter(None, by_split))
        first = next(filter(None, by_split))
        raise DataError(f"has several splits: {known}", where=source, fix=f"name one: {source}@{first}")
    return next(iter(by_split.values()))


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return kind_named(path) is not None and not hidden and not path.name.lower().startswith(_TOLD)


def _declared(
    configs: Sequence[Mapping[str, Any]], data: Sequence[str], config: str | None, source: str
) -> dict[str, list[str]]:
    """Files by split, of the configuration asked for, or the only or default one; empty without any."""
    if not configs:
        return {}
    names = [str(c.get("config_name", "default")) for c in configs]
    chosen = [c for c, name in zip(configs, names, strict=True) if name == config]
    if config is None:
        chosen = list(configs) if len(configs) == 1 else [c for c in configs if c.get("default")]
    if len(chosen) != 1:
        if config is not None:
            return {}
        fix = f"name one: {source.partition('@')[0]}/{names[0]}{''.join(source.partition('@')[1:])}"
        raise DataError(f"has several configurations: {', '.join(names)}", where=source, fix=fix)
    declared = chosen[0]["data_files"]
    items = declared if isinstance(declared, list) else [declared]
    by_split: dict[str, list[str]] = {}
    for item in items:
        told = item if isinstance(item, dict) else {"split": "train", "path": item}
        patterns = told.get("path", [])
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            found = [name for name in data if name == pattern or fnmatch.fnmatch(name, str(pattern))]
            by_split.setdefault(str(told.get("split", "train")), []).extend(found)
    return {name: sorted(set(files)) for name, files in by_split.items() if files}


def _below(data: Sequence[str], config: str | None, source: str) -> list[str]:
    """The files in the folder of a configuration, or all of them."""
    if config is None:
        return list(data)
    found = [name for name in data if name == config or name.startswith(f"{config}/")]
    if not found:
        folders = sorted({PurePath(name).parts[0] for name in data if "/" in name})
        raise DataError(
            f"has no {config!r}", where=source, fix=f"it has: {', '.join(folders) or 'no folders'}"
        )
    return found


def _by_name(data: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split that a word of their path names; under an empty name where none is named."""
    found: dict[str, list[str]] = {}
    for name in data:
        words = re.split(r"[/_.\-]", name.lower())
        split = next((key for key, known in _SPLITS.items() if any(word in known for word in words)), "")
        found.setdefault(split, []).append(name)
    return {key: found[key] for key in (*_SPLITS, "") if key in found}
