"""The run folder: what is done is not done again, what is half done does not count, nothing is torn."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from luthier.errors import ModelError, RecordError
from luthier.record import (
    Record,
    explain_os_errors,
    replace_folder,
    sha256_of,
    write_json,
    write_jsonl,
    write_text,
)


class Counted:
    """Work that writes `out.txt` and knows how often it did."""

    def __init__(self, record: Record, text: str = "done") -> None:
        self.record = record
        self.text = text
        self.times = 0

    def __call__(self) -> None:
        self.times += 1
        write_text(self.record / "out.txt", self.text)

    def stage(self, inputs: dict[str, Any] | None = None, **options: Any) -> bool:
        return self.record.stage("count", inputs or {"seed": 0}, ["out.txt"], self, **options)


@pytest.fixture
def work(tmp_path: Path) -> Counted:
    return Counted(Record(tmp_path))


def test_a_stage_runs_once(work: Counted) -> None:
    assert [work.stage(), work.stage(), work.stage()] == [True, False, False]
    assert work.times == 1


def test_a_stage_is_remembered_by_another_process(work: Counted) -> None:
    work.stage()
    later = Counted(Record(work.record.path))
    assert later.stage() is False
    assert later.times == 0


def test_a_stage_runs_again_when_its_inputs_change(work: Counted) -> None:
    assert [work.stage({"seed": 0}), work.stage({"seed": 1}), work.stage({"seed": 1})] == [True, True, False]
    assert work.stage({"seed": 1, "more": None}) is True


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "out.txt").unlink(),
        lambda folder: (folder / "out.txt").write_text("altered"),
        lambda folder: (folder / "out.txt").write_text(""),
        lambda folder: (folder / ".stages/count.json").unlink(),
        lambda folder: (folder / ".stages/count.json").write_text("{half"),
    ],
)
def test_a_stage_runs_again_when_what_it_left_is_not_whole(
    work: Counted, spoil: Callable[[Path], None]
) -> None:
    work.stage()
    spoil(work.record.path)
    assert work.stage() is True
    assert (work.record / "out.txt").read_text() == "done"
    assert work.stage() is False


def test_a_folder_is_an_output_of_names_and_contents(tmp_path: Path) -> None:
    record = Record(tmp_path)

    def work() -> None:
        write_text(record / "adapter/a.txt", "1")
        write_text(record / "adapter/deep/b.txt", "2")

    record.stage("adapter", {}, ["adapter"], work)
    assert record.stage("adapter", {}, ["adapter"], work) is False
    (tmp_path / "adapter/deep/b.txt").rename(tmp_path / "adapter/deep/c.txt")
    assert record.stage("adapter", {}, ["adapter"], work) is True


@pytest.mark.parametrize("blow", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_work_that_was_broken_off_is_not_remembered(work: Counted, blow: BaseException) -> None:
    def half() -> None:
        write_text(work.record / "out.txt", "half")
        raise blow

    with pytest.raises(type(blow)):
        work.record.stage("count", {"seed": 0}, ["out.txt"], half)
    assert work.record.stage_memo("count") is None
    assert work.stage() is True
    assert (work.record / "out.txt").read_text() == "done"


def test_an_older_success_is_forgotten_when_its_repetition_is_broken_off(work: Counted) -> None:
    """Same outputs, other inputs: going back to the old inputs must not find half of the new work."""
    work.stage({"seed": 0})

    def half() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.record.stage("count", {"seed": 1}, ["out.txt"], half)
    assert work.stage({"seed": 0}) is True


def test_what_told_of_the_old_outputs_is_removed_before_the_work(work: Counted) -> None:
    work.stage()
    write_text(work.record / "verdict.json", "ship")
    assert work.stage(spoils=["verdict.json"]) is False
    assert (work.record / "verdict.json").exists()
    assert work.stage({"seed": 1}, spoils=["verdict.json", "never.md"]) is True
    assert not (work.record / "verdict.json").exists()


def test_work_that_writes_less_than_it_promised_is_a_bug(work: Counted) -> None:
    with pytest.raises(AssertionError, match="did not write all of"):
        work.record.stage("count", {}, ["out.txt", "more.txt"], work)
    assert work.record.stage_memo("count") is None


def test_the_hash_of_outputs_feeds_the_stages_after(work: Counted) -> None:
    with pytest.raises(RecordError, match="has not run"):
        work.record.output_hash("count")
    work.stage({"seed": 0})
    first = work.record.output_hash("count")
    work.stage({"seed": 1})
    assert work.record.output_hash("count") == first  # the same content from other inputs
    work.text = "other"
    work.stage({"seed": 2})
    assert work.record.output_hash("count") != first


# --- writing ----------------------------------------------------------------------------------------


def no_space(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_content_and_says_so(
    work: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.stage()
    work.text = "new"
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(RecordError) as caught:
        work.stage({"seed": 1})
    assert "no space left on the disk" in str(caught.value)
    assert "free some space and run the same command again" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert (work.record / "out.txt").read_text() == "done"
    assert sorted(p.name for p in work.record.path.iterdir()) == [".stages", "out.txt"]
    monkeypatch.undo()
    assert work.stage({"seed": 1}) is True
    assert (work.record / "out.txt").read_text() == "new"


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_is_broken_off_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os if moment == "fsync" else Path, moment, stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, {"deep": float("-inf")}]])
def test_what_is_not_a_number_is_refused(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": value})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_jsonl(tmp_path / "b.jsonl", [{"x": 1}, {"x": value}])
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert not (tmp_path / "b.jsonl").exists()


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.none() | st.text() | st.integers()), max_size=5))
def test_rows_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Line separators inside texts (U+2028, form feed) do not make new lines."""
    record = Record(tmp_path_factory.mktemp("record"))
    write_jsonl(record / "rows.jsonl", rows)
    assert record.read_jsonl("rows.jsonl") == rows


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "adapter/old.txt", "old")
    write_text(tmp_path / ".adapter.writing/new.txt", "new")
    replace_folder(tmp_path / ".adapter.writing", tmp_path / "adapter")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        "adapter",
        "adapter/new.txt",
    ]


# --- reading ----------------------------------------------------------------------------------------


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    record = Record(tmp_path)
    for read in (record.read_json, record.read_jsonl):
        with pytest.raises(RecordError) as caught:
            read("scores.json", needed_by="evaluate")
        assert str(caught.value) == (
            f"{tmp_path / 'scores.json'}: not in this run folder yet\nFix: run: luthier evaluate {tmp_path}"
        )


def test_a_broken_file_names_its_place(tmp_path: Path) -> None:
    record = Record(tmp_path)
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n\n{"x": \n')
    with pytest.raises(RecordError, match=r"a\.json: not valid JSON"):
        record.read_json("a.json")
    with pytest.raises(RecordError, match=r"b\.jsonl:3: not valid JSON"):
        record.read_jsonl("b.jsonl")


def test_the_hash_of_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert sha256_of(tmp_path / "nothing") is None
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- one writer -------------------------------------------------------------------------------------


def hold(folder: str, held: Any, done: Any) -> None:
    with Record(folder).lock():
        held.set()
        done.wait(30)


def test_a_second_process_is_turned_away(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    held, done = processes.Event(), processes.Event()
    other = processes.Process(target=hold, args=(str(tmp_path), held, done))
    other.start()
    try:
        assert held.wait(30)
        with (
            pytest.raises(RecordError, match="another luthier is working") as caught,
            Record(tmp_path).lock(),
        ):
            pytest.fail("two writers")
        assert "choose another folder with --out" in str(caught.value)
    finally:
        done.set()
        other.join(30)
    with Record(tmp_path).lock():
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    held, done = processes.Event(), processes.Event()
    other = processes.Process(target=hold, args=(str(tmp_path), held, done))
    other.start()
    assert held.wait(30)
    other.kill()
    other.join(30)
    with Record(tmp_path).lock():
        pass


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RecordError, match="cannot be written") as caught, Record(tmp_path / "run").lock():
        pass
    assert "choose another folder with --out" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EIO, "the disk reports an input/output error; what was finished before is intact"),
        (errno.EACCES, "cannot be written: Permission denied"),
        (errno.EROFS, "cannot be written: Read-only file system"),
    ],
)
def test_errors_of_the_system_are_explained(tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(RecordError, match=told), explain_os_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_is_told_with_the_room_that_is_left(tmp_path: Path) -> None:
    with (
        pytest.raises(RecordError, match=r"no space left on the disk \([\d.]+ MB free\)"),
        explain_os_errors(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "no space")


def test_an_error_of_the_system_inside_another_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no space left"), explain_os_errors(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(ModelError, match="does not fit"), explain_os_errors(tmp_path):
        raise ModelError("does not fit: (os error 28)")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), explain_os_errors(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
