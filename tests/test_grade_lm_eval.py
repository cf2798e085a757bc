"""Reading lm-eval's files: the forms that its versions write, and what is none of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import DataError
from luthier.grade.lm_eval_results import SampleScores, TaskScore, read_results, read_samples

# As lm_eval 0.4.13 writes it, cut down to what is read.
RESULTS: dict[str, Any] = {
    "results": {
        "boolq": {
            "name": "boolq",
            "alias": "boolq",
            "sample_len": 40,
            "acc,none": 0.6,
            "acc_stderr,none": 0.078,
        },
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.05,
            "exact_match_stderr,strict-match": 0.03,
            "exact_match,flexible-extract": 0.1,
            "exact_match_stderr,flexible-extract": "N/A",
            "perplexity,none": float("nan"),
        },
        "mmlu": {"alias": "mmlu", "acc,none": 0.3, "sample_len": 9, "sample_count": {"acc,none": 8}},
    },
    "groups": {"mmlu": {"acc,none": 0.3}},
    "versions": {"boolq": 2.0, "gsm8k": 3},
    "higher_is_better": {"boolq": {"acc": True}, "gsm8k": {"exact_match": True}, "mmlu": {"acc": None}},
    "n-samples": {"boolq": {"original": 3270, "effective": 40}, "gsm8k": {"original": 1319, "effective": 20}},
}
READ = (
    TaskScore("boolq", "acc", "none", 0.6, 0.078, 40, True, "2.0"),
    TaskScore("gsm8k", "exact_match", "strict-match", 0.05, 0.03, 20, True, "3"),
    TaskScore("gsm8k", "exact_match", "flexible-extract", 0.1, None, 20, True, "3"),
    TaskScore("mmlu", "acc", "none", 0.3, None, 8, None, None, group=True),
)


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_every_metric_and_filter_is_a_score_of_its_own(tmp_path: Path) -> None:
    assert read_results(write(tmp_path / "results_x.json", RESULTS)) == READ


def test_the_newest_file_of_a_folder(tmp_path: Path) -> None:
    newest = {"results": {"piqa": {"acc,none": 0.5}}}
    write(tmp_path / "org__model/results_2025-01-02T03-04-05.json", newest)
    write(tmp_path / "org__model/results_2024-12-31T23-59-59.json", RESULTS)
    assert [score.task for score in read_results(tmp_path)] == ["piqa"]


def test_files_from_before_filters(tmp_path: Path) -> None:
    old = {"results": {"boolq": {"acc": 0.6, "acc_stderr": 0.05}}, "versions": {"boolq": 1}}
    (score,) = read_results(write(tmp_path / "old.json", old))
    assert score == TaskScore("boolq", "acc", "none", 0.6, 0.05, None, None, "1")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no results of lm-eval"),
        ('{"score": 1}', "no results of lm-eval"),
        ('{"results": []}', "no results of lm-eval"),
        ('{"results": {}}', "no score in its `results`"),
        ('{"results": {"a": {"alias": "a", "acc,none": "N/A"}}}', "no score in its `results`"),
    ],
)
def test_a_file_that_holds_no_results(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        read_results(write(tmp_path / "results_x.json", content))
    assert caught.value.where == str(tmp_path / "results_x.json")
    assert "lm_eval" in str(caught.value.fix)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no results_\*\.json in this folder"):
        read_results(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        read_results(tmp_path / "none")
    with pytest.raises(DataError, match="no such file of samples"):
        read_samples(tmp_path / "samples_a.jsonl")
    with pytest.raises(DataError, match="no such file of samples"):
        read_samples(write(tmp_path / "results_x.json", RESULTS))


def sample(doc: int, **more: Any) -> dict[str, Any]:
    return {"doc_id": doc, "doc": {"question": "q"}, "target": "1", "filter": "none", "doc_hash": "ab"} | more


def lines(*rows: Any) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


def test_samples_item_by_item(tmp_path: Path) -> None:
    rows = [sample(i, acc=float(i < 3), acc_norm=0.5, metrics=["acc"]) for i in range(4)]
    rows += [sample(0, filter="strict", acc=0.0, metrics=["acc", "ppl"], ppl=[1.0, 2.0])]
    path = write(tmp_path / "samples_my_task_2025-01-02T03-04-05.678901.jsonl", lines(*rows, ""))
    usual, strict = read_samples(path)
    assert usual == SampleScores("my_task", "acc", "none", {"0": 1.0, "1": 1.0, "2": 1.0, "3": 0.0})
    assert (usual.n, usual.mean) == (4, 0.75)
    assert usual.stderr == pytest.approx(math.sqrt(0.75 / 3 / 4))  # 3 * 0.0625 + 0.5625 = 0.75, over n - 1, n
    assert (strict.filter, strict.n, strict.stderr) == ("strict", 1, None)


def test_samples_that_do_not_list_their_metrics(tmp_path: Path) -> None:
    rows = [sample(i, acc=1, resps=[["x"]], target=1) for i in range(2)]
    (found,) = read_samples(write(tmp_path / "samples_boolq.jsonl", lines(*rows)))
    assert (found.task, found.metric, found.mean) == ("boolq", "acc", 1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (lines(sample(0, acc=1.0), "{"), r"samples_a\.jsonl:2: cannot be read as JSON"),
        (lines(sample(0, acc=1.0), [1]), r"samples_a\.jsonl:2: not a JSON object"),
        (lines({"acc": 1.0}), "no doc_id"),
        (lines(sample(0, acc=1.0), sample(0, acc=0.0)), r"samples_a\.jsonl:2: item 0 is there twice"),
        (lines(sample(0)), "no sample has a score"),
        ("", "no sample has a score"),
    ],
)
def test_samples_that_are_none(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_samples(write(tmp_path / "samples_a.jsonl", text))
