"""card.md: model card and data card in one file, with the hub's metadata on top.

The front matter follows the Hugging Face hub's model-card metadata (`base_model`, `library_name`,
`model-index`). A card is made to be published, so unlike the report it names no folder of this
machine and quotes no finding about secrets or personal data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import jinja2
import yaml

import luthier
from luthier.card import numbers
from luthier.card.facts import describe_adapter, is_whole_model, key_figures
from luthier.card.markdown import Markdown, code, escape, fence, one_line
from luthier.card.origins import warn_of
from luthier.card.questions import answer_questions
from luthier.card.reading import read_view
from luthier.card.templates import environment
from luthier.card.view import Finding, View
from luthier.recipe.method_defaults import COMPARED
from luthier.record import Record, write_text

EMBEDDED = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
PRIVATE_CHECKS = ("personal_data", "secret")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def write_card(record: Record) -> Path:
    """Write `card.md` into the run folder from what is there, and return its path.

    Raises:
        RecordError: a file of the folder is there but cannot be read.
    """
    path = record / "card.md"
    write_text(path, render_card(read_view(record)))
    return path


def render_card(view: View) -> str:
    """The card as text."""
    text = (
        _environment()
        .get_template("card.md.j2")
        .render(
            view=view,
            front_matter=Markdown(
                yaml.safe_dump(front_matter(view), sort_keys=False, allow_unicode=True, width=10_000)
            ),
            questions=answer_questions(view),
            figures=key_figures(view),
            origin_warnings=warn_of(view.data.origins) if view.data else [],
            base=public_name(view.model),
            is_embedded=view.model in EMBEDDED,
            snippet=_snippet(view),
            setup=_setup(view),
            machine=_machine(view.environment),
            luthier_version=luthier.__version__,
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def front_matter(view: View) -> dict[str, Any]:
    """The hub's metadata. `base_model` only where it is a hub id; the licence is the user's to state."""
    tuned = view.candidate("tuned")
    base = public_name(view.model)
    name, metric = one_line(view.name), one_line(view.metric)
    matter: dict[str, Any] = {}
    if HUB_ID.fullmatch(base):
        matter["base_model"] = base
        if tuned:
            matter["base_model_relation"] = "finetune" if _is_whole(view) else "adapter"
    if tuned:
        matter["library_name"] = "transformers" if _is_whole(view) else "peft"
    matter |= {"pipeline_tag": _task(view), "license": "unknown", "tags": _tags(view)}
    if tuned and tuned.score.value is not None:
        result = {
            "task": {"type": _task(view)},
            "dataset": {"type": "private", "name": f"{name}, held-out examples", "split": "test"},
            "metrics": [
                {"type": one_line(view.grader) or metric, "name": metric, "value": tuned.score.value}
            ],
        }
        matter["model-index"] = [{"name": name, "results": [result]}]
    return matter


def public_name(model: str) -> str:
    """The base model as a stranger can find it: a hub id, or the last part of a local path."""
    if model in EMBEDDED:
        return EMBEDDED[model]
    if HUB_ID.fullmatch(model):
        return model
    return PureWindowsPath(model).name if "\\" in model else PurePath(model).name


def _tags(view: View) -> list[str]:
    training = view.training.summary if view.training else {}
    adapter = training.get("adapter")
    kind = adapter.get("kind") if isinstance(adapter, Mapping) else None
    return [one_line(str(tag)) for tag in ("luthier", training.get("method"), kind) if tag]


def _task(view: View) -> str:
    """What the hub calls what the model does."""
    method = view.training.summary.get("method") if view.training else None
    return "text-classification" if method in COMPARED else "text-generation"


def _is_whole(view: View) -> bool:
    return view.training is not None and is_whole_model(view.training.summary.get("adapter"))


def _snippet(view: View) -> Markdown | None:
    if view.candidate("tuned") is None:
        return None
    if view.training is not None and view.training.summary.get("method") == "cpt":
        lines = [
            *_loading(view),
            'inputs = tokenizer("...", return_tensors="pt")',
            "output = model.generate(**inputs, max_new_tokens=256)",
            "print(tokenizer.decode(output[0], skip_special_tokens=True))",
        ]
        return _fenced(lines)
    tokens = numbers.finite(view.recipe.get("max_new_tokens"))
    own = view.recipe.get("tuned_system")
    system = view.recipe.get("system") if own is None else own
    if view.training is not None and view.training.summary.get("encoder"):
        text = json.dumps(f"{system}\n..." if system else "...", ensure_ascii=False)
        return _fenced([*_loading(view), f'inputs = tokenizer({text}, return_tensors="pt")', _LABEL])
    turns = [{"role": "system", "content": str(system)}] if system else []
    turns.append({"role": "user", "content": "..."})
    if rewards := _has_reward(view):
        turns.append({"role": "assistant", "content": "..."})
    asked = [
        "messages = [",
        *(f"    {json.dumps(turn, ensure_ascii=False)}," for turn in turns),
        "]",
        "inputs = tokenizer.apply_chat_template(",
        f'    messages, add_generation_prompt={not rewards}, return_tensors="pt", return_dict=True',
        ")",
    ]
    if _task(view) == "text-classification":
        told = ["print(model(**inputs).logits)  # higher is better" if rewards else _LABEL]
    else:
        told = [
            f"output = model.generate(**inputs, do_sample=False, max_new_tokens={tokens or 256:.0f})",
            'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ]
    return _fenced([*_loading(view), *asked, *told])


_LABEL = "print(model(**inputs).logits.softmax(-1))  # of the labels in alphabetical order"


def _has_reward(view: View) -> bool:
    return view.training is not None and view.training.summary.get("method") == "reward"


def _loading(view: View) -> list[str]:
    base = json.dumps(public_name(view.model), ensure_ascii=False)
    classifies = _task(view) == "text-classification"
    auto = "AutoModelForSequenceClassification" if classifies else "AutoModelForCausalLM"
    if _is_whole(view):
        return [
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'model = {auto}.from_pretrained("adapter")',
            'tokenizer = AutoTokenizer.from_pretrained("adapter")',
        ]
    labels = view.training.summary.get("labels") if view.training else None
    outputs = f", num_labels={len(labels) if labels else 1}" if classifies else ""
    return [
        "from peft import PeftModel",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f"base = {auto}.from_pretrained({base}{outputs})",
        'model = PeftModel.from_pretrained(base, "adapter")',
        f"tokenizer = AutoTokenizer.from_pretrained({base})",
    ]


def _fenced(lines: Sequence[str]) -> Markdown:
    body = "\n".join(lines)
    return Markdown(f"{fence(body)}python\n{body}\n{fence(body)}")


def _setup(view: View) -> list[tuple[str, str]]:
    if view.training is None:
        return []
    row = view.training.summary
    number = {key: numbers.finite(value) for key, value in row.items()}
    adapter = row.get("adapter")
    return [
        ("Method", str(row.get("method") or numbers.NOT_MEASURED)),
        ("Adapter", describe_adapter(adapter) if isinstance(adapter, Mapping) else numbers.NOT_MEASURED),
        ("Trained parameters", numbers.count(number.get("trainable_parameters"))),
        ("Epochs", numbers.count(number.get("epochs"))),
        ("Steps", numbers.count(number.get("steps"))),
        ("Kept step", numbers.count(view.training.best_step)),
        ("Peak learning rate", numbers.rate(number.get("learning_rate"))),
        ("Tokens", numbers.count(number.get("tokens"))),
        ("Time", numbers.duration(view.training.seconds)),
        ("Peak memory", numbers.size(number.get("peak_memory_bytes"))),
        (
            "Model size" if is_whole_model(adapter) else "Adapter size",
            numbers.size(number.get("adapter_bytes")),
        ),
        ("Stopped because", str(row.get("stopped") or numbers.NOT_MEASURED)),
        ("Seed", str(view.recipe.get("seed", numbers.NOT_MEASURED))),
    ]


def _machine(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    packages = environment.get("packages")
    named = {key: environment.get(key) for key in ("luthier", "python", "cpu", "gpu")}
    rows = [
        (key, "none" if value is None else str(value)) for key, value in named.items() if key in environment
    ]
    if isinstance(packages, Mapping):
        rows += [(str(name), str(version)) for name, version in packages.items() if version]
    return rows


def _public_message(finding: Finding) -> str:
    """The finding's message, unless it may quote what must not be published."""
    return "(details are in the run folder)" if finding.check in PRIVATE_CHECKS else finding.message


@cache
def _environment() -> jinja2.Environment:
    # not HTML: `finalize` escapes for Markdown, and only Markdown passes through
    made = environment(autoescape=False, finalize=escape)
    made.filters |= {"code": code, "public_message": _public_message}
    return made
