"""report.html: true to the record, closed to the network, deaf to hostile text, open about gaps."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from card_record import edit_json, record, write_record

from luthier.card import write_report
from luthier.record import Record, write_json, write_jsonl

__all__ = ["record"]
PAYLOAD = (
    "</script></style></svg><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}\"'--><!-- \ud800\x00"
)
VOID = {"meta", "input", "line", "circle", "rect", "polyline", "br"}


class Page(HTMLParser):
    """The page's tags, attributes, inline scripts and styles, and the text a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, "unbalanced tags"
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside in self.inline:
            self.inline[inside].append(data)
        else:
            self.words.append(data)


def render(record: Record) -> Page:
    return Page(write_report(record).read_text(encoding="utf-8"))


def rewrite(record: Record, change: Callable[[Any], Any]) -> None:
    """Apply `change` to every JSON file of the record."""
    for path in sorted(record.path.rglob("*.json")):
        write_json(path, change(json.loads(path.read_text(encoding="utf-8"))))
    for path in sorted(record.path.rglob("*.jsonl")):
        write_jsonl(
            path, [change(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        )


def everywhere(value: Any, leaf: Callable[[Any], Any], key: Callable[[str], str] = str) -> Any:
    if isinstance(value, dict):
        return {key(name): everywhere(part, leaf, key) for name, part in value.items()}
    return [everywhere(part, leaf, key) for part in value] if isinstance(value, list) else leaf(value)


def test_says_what_was_decided_and_shows_the_key_numbers(record: Record) -> None:
    text = render(record).text
    for shown in (
        "Ship the tuned model.",
        "+9.4 points [+4.1, +14.9] over few_shot, p = 0.002",
        "−0.6 points [−1.7, +0.5] on 400 items",
        "96 tokens tuned, 0.41 s; few_shot: 462 tokens, 0.93 s",
        "444 284 train, 40 validation, 120 test",
        "14 min 12 s 3 epochs, 105 steps",
        "The smallest difference this test set can detect is 7.4 points.",
        "80.8% [76.4, 84.9]",
        "14 answers lost, 11 gained.",
        "Put a damp towel under it right answer base Oil the table tuned",
        "+0.021 nats per token [−0.004, +0.046] on 60 items",
        "9 wrong answers of tuned came with a confidence of at least 90.0% (7.5%)",
        "tickets.jsonl:12",
        "and 4 more",
        "The detector is not installed.",
        "Looked for and not found: leakage, secret, inconsistent answers.",
    ):
        assert shown in text, shown


@pytest.fixture(scope="module")
def whole_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a reader sees of the unchanged record."""
    return render(write_record(tmp_path_factory.mktemp("whole") / "run")).text


# Each number of the record, given an unmistakable value, must turn up as that value in the page.
CHANGES: list[tuple[str, tuple[str | int, ...], float, str]] = [
    ("scores.json", ("candidates", "tuned", "score"), 0.9137, "91.4% [86.8, 93.2]"),
    ("scores.json", ("candidates", "retrieval", "low"), 0.7123, "79.2% [71.2, 83.5]"),
    ("scores.json", ("candidates", "scratch", "seconds"), 7.77, "7.77 s"),
    ("scores.json", ("candidates", "prompt", "prompt_tokens"), 777.0, "777"),
    ("scores.json", ("candidates", "prompt", "unscored"), 13, "13 unscored"),
    ("scores.json", ("paired", 1, "difference"), 0.0777, "+7.8 points"),
    ("scores.json", ("paired", 0, "p_adjusted"), 0.0123, "0.012"),
    ("scores.json", ("paired", 0, "wins", "rate"), 0.7171, "wins 71.7% [58.0, 74.0]"),
    ("scores.json", ("detectable_difference",), 0.1234, "12.3 points"),
    ("verdict.json", ("gates", 0, "value"), 0.0567, "+5.7 points [+4.1, +14.9]"),
    ("verdict.json", ("gates", 1, "threshold"), 0.77, "0.77×"),
    ("verdict.json", ("gates", 3, "high"), 0.777, "+0.777"),
    ("verdict.json", ("confident_and_wrong", "n"), 77, "77 wrong answers"),
    ("probes/forgetting.json", ("base",), 0.7123, "71.2% before"),
    ("probes/forgetting.json", ("flips", "lost"), 77, "77 answers lost"),
    ("probes/forgetting.json", ("margin",), 0.077, "margin 7.7 points"),
    ("probes/forgetting.json", ("abilities", 0, "tuned"), 0.1234, "39.1% → 12.3%"),
    ("probes/forgetting.json", ("accuracy", "base"), 0.7712, "77.1% before"),
    ("probes/own_text.json", ("tuned",), 3.3333, "3.333 nats per token after"),
    ("train/summary.json", ("peak_memory_bytes",), 7_700_000_000, "7.7 GB"),
    ("train/summary.json", ("best_step",), 77, "best step 77"),
    ("train/summary.json", ("learning_rate",), 7.7e-5, "7.7e-05"),
    ("data/manifest.json", ("sides", "test", "examples"), 777, "test 777"),
    ("data/manifest.json", ("sources", 0, "left_out"), 77, "messages 444 77"),
    ("data/manifest.json", ("near_duplicate_clusters",), 77, "77 clusters"),
]


@pytest.mark.parametrize("change", CHANGES, ids=[f"{c[0]}:{c[1][-1]}" for c in CHANGES])
def test_every_number_is_the_records(
    record: Record, whole_text: str, change: tuple[str, tuple[str | int, ...], float, str]
) -> None:
    file, where, value, shown = change
    assert shown not in whole_text
    content = record.read_json(file)
    part = content
    for step in where[:-1]:
        part = part[step]
    part[where[-1]] = value
    write_json(record / file, content)
    assert shown in render(record).text


def test_asks_nothing_of_the_network(record: Record) -> None:
    page = render(record)
    for tag, attributes in page.tags:
        assert tag not in (
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "audio",
            "video",
            "use",
            "image",
        ), tag
        assert not {"src", "srcset", "style", "xlink:href", "action"} & set(attributes), (tag, attributes)
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    for source in page.inline["style"] + page.inline["script"]:
        assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttp|import\(|innerHTML|eval", source)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")

    def pin(source: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"

    (style,), (script,) = page.inline["style"], page.inline["script"]
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src {pin(style)}",
        f"script-src {pin(script)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_hostile_text_stays_text(record: Record) -> None:
    clean = render(record)
    for name in ("prompt", "few_shot", "retrieval", "scratch", "tuned"):
        (record / f"predictions/{name}.jsonl").rename(record / f"predictions/{name}.kept")
    rewrite(
        record, lambda v: everywhere(v, lambda leaf: leaf + safe(PAYLOAD) if isinstance(leaf, str) else leaf)
    )
    for path in sorted((record / "predictions").glob("*.kept")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        hostile = [
            {**r, **{k: r[k] + safe(PAYLOAD) for k in ("answer", "reference", "input", "file")}} for r in rows
        ]
        write_jsonl(path.with_suffix(".jsonl"), hostile)
    page = render(record)
    assert "alert(1)" in page.text and "{{7*7}}" in page.text  # shown, neither run nor evaluated
    assert page.inline == clean.inline
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]


def safe(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def test_hostile_names_stay_text(record: Record) -> None:
    """Keys of the record (candidates, packages, sides, fields of answers) are text of others, too."""
    mean = "<script>alert(2)</script>"
    scores = record.read_json("scores.json")
    scores["candidates"][mean] = scores["candidates"]["scratch"]
    write_json(record / "scores.json", scores)
    sides = record.read_json("data/manifest.json")["sides"]
    edit_json(record, "data/manifest.json", sides=sides | {mean: {"examples": 3, "sha256": mean}})
    edit_json(record, "environment.json", packages={mean: mean})
    edit_json(record, "verdict.json", recommended=mean)
    answer = json.dumps({mean: "\ud800 <img src=x>"})
    row = {"id": "x", "answer": answer, "reference": answer, "input": "q", "detail": {"fields": {mean: 0}}}
    for name, score in (("prompt", 0.0), ("tuned", 1.0)):
        write_jsonl(record / f"predictions/{name}.jsonl", [row | {"score": score}])
    page = render(record)
    assert page.text.count("alert(2)") >= 5
    assert len(page.inline["script"]) == 1 and not [tag for tag, _ in page.tags if tag == "img"]


def test_lone_surrogates_and_control_characters_do_not_stop_the_report(record: Record) -> None:
    path = record / "predictions/tuned.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0]["answer"] = "half \ud800 a pair, \x00 and \x1b[31m"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "half \ufffd a pair, \ufffd and \ufffd[31m" in render(record).text


def test_an_undefined_number_is_never_shown_as_zero(record: Record) -> None:
    shutil.rmtree(record / "predictions")
    rewrite(record, lambda v: everywhere(v, lambda leaf: None if isinstance(leaf, int | float) else leaf))
    text = render(record).text
    assert text.count("not measured") > 20
    assert not re.search(
        r"(?<![\d.:])[+−]?0(\.0+)?(%|×| points| tokens| items| examples| answers| s\b| ms| B\b)", text
    )
    assert (
        "not decided" in text
        and "✓" not in text
        and " passed" not in text.replace("not a gate that passed", "")
    )


PARTS = [
    "recipe.yaml",
    "environment.json",
    "data",
    "audit.json",
    "predictions",
    "scores.json",
    "train",
    "probes",
    "verdict.json",
]


@pytest.mark.parametrize("kept", [[], *[[part] for part in PARTS]], ids=["nothing", *PARTS])
def test_sparse_records_render(record: Record, kept: list[str]) -> None:
    for part in set(PARTS) - set(kept):
        path = record / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = render(record).text
    assert ("Ship the tuned model." in text) == (kept == ["verdict.json"])
    assert "Not measured" in text
    if kept != ["scores.json"]:
        assert "this record holds no scores" in text
    if kept != ["train"]:
        assert "nothing was trained in this record" in text
    if kept != ["probes"]:
        assert "no probe was run" in text


def test_a_run_without_tuning_compares_what_there_is(record: Record) -> None:
    scores = record.read_json("scores.json")
    del scores["candidates"]["tuned"]
    write_json(record / "scores.json", scores | {"paired": []})
    (record / "predictions/tuned.jsonl").unlink()
    edit_json(record, "verdict.json", decision="inconclusive", recommended="few_shot")
    text = render(record).text
    assert "Not decided yet." in text and "few_shot against prompt on 120 held-out examples" in text
    assert "candidate tuned Left out of this run." in text


def test_a_failed_probe_is_neither_measured_nor_passed(record: Record) -> None:
    nothing = dict.fromkeys(("n", "base", "tuned", "difference", "low", "high", "margin", "flips"))
    edit_json(
        record,
        "probes/forgetting.json",
        finding="failed",
        reason="out of memory",
        abilities=[],
        examples=[],
        **nothing,
    )
    text = render(record).text
    assert "the probe failed to run Not measured. Out of memory." in text
    assert "forgetting Out of memory." in text  # among what was not measured


def test_wrong_fields_are_marked(record: Record) -> None:
    row = {"id": "x", "reference": '{"team": "a", "at": {"city": "b"}}', "input": "q"}
    answers = {
        "prompt": ('{"team": "z", "at": {"city": "b"}, "extra": 1}', 0.33),
        "tuned": (row["reference"], 1.0),
    }
    for name, (answer, score) in answers.items():
        right = {"team": int(score == 1), "at.city": 1} | ({"extra": 0} if score < 1 else {})
        write_jsonl(
            record / f"predictions/{name}.jsonl",
            [row | {"answer": answer, "score": score, "detail": {"fields": right}}],
        )
    text = render(record).text
    assert "team a ✕ z ✓ a at.city b ✓ b ✓ b extra absent ✕ 1 absent" in text


def test_rows_carry_the_kind_that_the_filter_uses(record: Record) -> None:
    page = render(record)
    kinds = [a["data-kind"] for tag, a in page.tags if tag == "article" and "data-kind" in a]
    buttons = [a["data-kind"] for tag, a in page.tags if tag == "button" and "data-kind" in a]
    assert len(kinds) == 120 and set(kinds) <= {"better", "worse", "wrong", "right", "unscored"}
    assert buttons == ["all", "better", "worse", "wrong"]
    for kind, label in (("better", "tuned better"), ("worse", "tuned worse"), ("wrong", "Both wrong")):
        assert f"{label} {kinds.count(kind)}" in page.text


def test_ids_are_unique_and_labels_point_at_them(record: Record) -> None:
    page = render(record)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = [name for _, a in page.tags for name in a.get("aria-labelledby", "").split()]
    wanted += [a["href"][1:] for tag, a in page.tags if tag == "a"]
    assert set(wanted) <= set(ids)


def test_the_page_stays_small_and_is_written_whole(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    path = write_report(record)
    assert path == record / "report.html" and path.stat().st_size < 1_000_000
    assert not list(record.path.glob(".report*"))
