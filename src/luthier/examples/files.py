"""Which files a source of examples names: a file, a folder of files, or a data set of the hub."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from luthier.errors import DataError
from luthier.examples.hub import HUB, fetch_hub
from luthier.examples.row import Problem
from luthier.examples.rows import READABLE, kind_named

_DESCRIBE = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of `datasets`
_ARROW = "write it as Parquet: datasets.load_from_disk(FOLDER).to_parquet(FILE), for each of its splits"


@dataclass(frozen=True)
class DataFile:
    """A file to read, and its name as findings show it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        files: to be read, in order.
        passed_over: files that are not read, with the reason.
        revision: commit of the hub that they are from.
    """

    files: tuple[DataFile, ...]
    passed_over: tuple[Problem, ...] = ()
    revision: str | None = None


def find_files(source: Path | str) -> Found:
    """The files of a source: itself, those of a folder in the order of their names, or those of the hub.

    Raises:
        DataError: a folder without any, a hub that cannot be reached, or no such data set.
    """
    name = str(source)
    if name.startswith(HUB):
        fetched = fetch_hub(name)
        readable, left = choose_readable(fetched.files)
        files = tuple(DataFile(fetched.files[inner], f"{fetched.name}/{inner}") for inner in readable)
        passed_over = tuple(Problem(f"{fetched.name}/{inner}", *why) for inner, why in left.items())
        return Found(files, passed_over, fetched.revision)
    path = Path(source)
    if not path.is_dir():
        return Found((DataFile(path, name),))
    return _in_folder(path)


def choose_readable(names: Iterable[str]) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Names of files as those to read, and those to pass over with reason and fix.

    Plain text counts only where nothing else does: beside tables it is a README.
    """
    read: list[str] = []
    left: dict[str, tuple[str, str]] = {}
    for name in sorted(names):
        path = PurePath(name)
        if any(part.startswith(".") for part in path.parts):
            left[name] = ("a hidden file was not read", "rename it if it holds examples")
        elif path.name in _DESCRIBE:
            left[name] = ("describes a data set and holds no examples", "give it alone if it does")
        elif path.suffix == ".arrow":
            left[name] = ("an Arrow file was not read", _ARROW)
        elif kind_named(path) is None:
            left[name] = ("not a kind of file that holds examples", f"Luthier reads {READABLE}")
        else:
            read.append(name)
    tables = [name for name in read if kind_named(PurePath(name)) != "text"]
    for name in read if tables else ():
        if name not in tables:
            left[name] = ("plain text beside files of examples was not read", "give it alone if it is meant")
    return tables or read, left


def _in_folder(path: Path) -> Found:
    inside: dict[str, Path] = {}
    left: list[Problem] = []
    for folder, folders, files in os.walk(path, onerror=_refuse):
        folders.sort()
        links = [Path(folder) / name for name in folders if (Path(folder) / name).is_symlink()]
        left += [Problem(str(link), "a link to a folder was not followed", "give it alone") for link in links]
        for name in files:
            inside[(Path(folder) / name).relative_to(path).as_posix()] = Path(folder) / name
    readable, other = choose_readable(inside)
    if not readable:
        arrow = any(name.endswith(".arrow") for name in inside)
        fix = _ARROW if arrow else f"give a file, or a folder of them: {READABLE}"
        raise DataError("is a folder without a file of examples", where=str(path), fix=fix)
    left += [Problem(str(path / name), *why) for name, why in other.items()]
    return Found(tuple(DataFile(path / name, str(path / name)) for name in readable), tuple(left))


def _refuse(error: OSError) -> None:
    where = str(error.filename)
    fix = "let yourself read it, or move it elsewhere"
    raise DataError(f"cannot be read: {error.strerror}", where=where, fix=fix) from None
