"""card.md: metadata the hub accepts, six answers from the numbers, Markdown that no text can bend."""

from __future__ import annotations

import ast
import json
import re
import shutil
from typing import Any

import pytest
import yaml
from card_record import edit_json, record
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import metadata_load
from markdown_it import MarkdownIt
from test_card_report import everywhere, rewrite, safe

from luthier.card import write_card
from luthier.card.model_card import public_name
from luthier.record import Record, write_json, write_text

__all__ = ["record"]
HOSTILE = "a|b\n\n# head\n<script>alert(1)</script> [x](http://evil.example) ![y](//z) `c` ```\n---\n@team https://evil.example"


def card_of(record: Record) -> tuple[dict[str, Any], str]:
    text = write_card(record).read_text(encoding="utf-8")
    _, matter, body = text.split("---\n", 2)
    return yaml.safe_load(matter), body


def tokens_of(body: str) -> list[Any]:
    """Block and inline tokens, with HTML, tables and bare links switched on as the hub has them."""
    blocks = MarkdownIt("gfm-like", {"linkify": False}).parse(body)
    return [token for block in blocks for token in (block, *(block.children or []))]


def test_front_matter_is_what_the_hub_reads(record: Record) -> None:
    matter, _ = card_of(record)
    assert matter["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (matter["library_name"], matter["license"]) == ("peft", "unknown")
    assert matter["tags"] == ["luthier", "sft", "lora"]
    loaded = ModelCardData(**(metadata_load(record / "card.md") or {}), ignore_metadata_errors=False)
    assert loaded.eval_results is not None
    (result,) = loaded.eval_results
    assert (result.metric_name, result.metric_value, result.dataset_split) == ("fields right", 0.9022, "test")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("/home/ada/models/mine", "mine"),
        (r"C:\models\mine", "mine"),
    ],
)
def test_a_published_card_names_no_folder(record: Record, model: str, name: str) -> None:
    assert public_name(model) == name
    write_text(
        record / "recipe.yaml",
        yaml.safe_dump({"name": "t", "model": model, "data": {"train": "/home/ada/x"}}),
    )
    matter, body = card_of(record)
    assert matter.get("base_model") == (name if "/" in name else None)
    assert "/home" not in body and "models" not in body


def test_the_six_questions_are_answered_from_the_numbers(record: Record) -> None:
    _, body = card_of(record)
    asked = re.findall(r"### (\d)\. (.*)\n\n(.*)", body)
    assert [number for number, *_ in asked] == list("123456")
    answers = [answer for *_, answer in asked]
    for answer, said in zip(
        answers,
        (
            "The audit found label conflict (1), class imbalance (1). "
            "Looked for and not found: inconsistent answers.",
            "284 train, 40 validation, 120 test. The audit reports 1 error and 2 warnings. "
            "The test set can detect differences from 7.4 points.",
            "few_shot: 80.8% [76.4, 84.9]. Tuned minus few_shot: +9.4 points [+4.1, +14.9], p = 0.002.",
            "The metric is fields right, on 120 held-out examples. Split: by cluster of near-duplicates, "
            "stratified by answer. Looked for and not found: leakage.",
            "9 wrong answers of tuned came with a confidence of at least 90.0% (7.5%).",
            "1 source file recorded with sha256",
        ),
        strict=True,
    ):
        assert said in answer


def test_silence_of_the_record_is_said(record: Record) -> None:
    for part in ("audit.json", "scores.json", "verdict.json", "train", "probes", "data", "predictions"):
        path = record / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    matter, body = card_of(record)
    assert "model-index" not in matter and "library_name" not in matter
    answers = re.findall(r"### \d\. .*\n\n(.*)", body)
    assert len(answers) == 6 and all("not measured" in a.lower() or "not recorded" in a for a in answers)
    assert "there is no adapter to load" in body
    assert "- bias: " in body and "- forgetting: " in body


def test_a_failed_check_is_not_a_clean_bill(record: Record) -> None:
    summary = record.read_json("audit.json")["summary"]
    del summary["leakage"]  # as the audit writes it when the check broke
    edit_json(record, "audit.json", failed=[{"check": "leakage", "reason": "out of memory"}], summary=summary)
    _, body = card_of(record)
    assert "Not measured: leakage." in body and "not found: leakage" not in body


def test_undefined_numbers_are_not_zero(record: Record) -> None:
    rewrite(record, lambda v: everywhere(v, lambda leaf: None if isinstance(leaf, int | float) else leaf))
    matter, body = card_of(record)
    assert "model-index" not in matter
    assert not re.search(r"(?<![\d.])[+−]?0(\.0+)?(%|×| points| tokens| items| s\b)", body)


def test_private_findings_are_not_quoted(record: Record) -> None:
    _, body = card_of(record)
    assert "example.org" not in body and "personal_data" in body


def test_hostile_text_cannot_bend_the_markdown(record: Record) -> None:
    before = tokens_of(card_of(record)[1])
    rewrite(record, lambda v: everywhere(v, lambda leaf: leaf + HOSTILE if isinstance(leaf, str) else leaf))
    recipe = yaml.safe_load((record / "recipe.yaml").read_text(encoding="utf-8"))
    write_text(record / "recipe.yaml", yaml.safe_dump(recipe | {"name": HOSTILE, "system": HOSTILE}))
    matter, body = card_of(record)
    assert matter["model-index"][0]["name"] == " ".join(HOSTILE.split())
    after = tokens_of(body)
    kinds = {"html_block", "html_inline", "link_open", "image", "hr"}
    assert not [token for token in after if token.type in kinds]
    assert "alert(1)" in body and "https://evil" not in body.replace(_code(after), "")
    for kind in ("heading_open", "table_open", "tr_open", "td_open", "fence"):
        assert [t.type for t in after].count(kind) == [t.type for t in before].count(kind), kind


def _code(tokens: list[Any]) -> str:
    return next(token.content for token in tokens if token.type == "fence")


def test_the_snippet_is_python_and_carries_the_system_prompt(record: Record) -> None:
    hostile = "say \"hi\"\n```\nimport os; os.remove('x')"
    recipe = yaml.safe_load((record / "recipe.yaml").read_text(encoding="utf-8"))
    write_text(record / "recipe.yaml", yaml.safe_dump(recipe | {"system": hostile, "max_new_tokens": 48}))
    source = _code(tokens_of(card_of(record)[1]))
    tree = ast.parse(source)
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert hostile in constants and 48 in constants
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import)]


def test_surrogates_do_not_stop_the_card(record: Record) -> None:
    path = record / "verdict.json"
    verdict = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(verdict | {"headline": "half \ud800"}), encoding="utf-8")
    assert "half \ufffd" in card_of(record)[1]
    write_json(path, verdict | {"headline": safe("\ud800")})
    assert r"\\ud800" in card_of(record)[1]
