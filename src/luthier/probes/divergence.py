"""KL(base || tuned) per token: how far tuning moved the model, on the task's prompts and on everyday ones.

The base continues each prompt by itself, sampled at temperature 1; the mean over its texts of the rise of
the loss from base to tuned estimates the divergence without bias. On new-task prompts it predicts forgetting
(arXiv 2509.04259). It is no harm by itself, since a model that learnt something has moved: a trend
unless the recipe gives it a margin.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from luthier.chat import TrainingSequence
from luthier.generate import generate
from luthier.models.kept import kept
from luthier.probes.change import NATS, paired_change, part, report_change
from luthier.probes.own_text import REQUESTS
from luthier.probes.own_text import TOKENS as GENERAL_TOKENS
from luthier.probes.subjects import VERSION, Evidence, Side, Subjects, drawn

ITEMS = 48
TASK_TOKENS = 16


def measure_kl(subjects: Subjects) -> list[dict[str, Any]]:
    """Per text of the base: whether its prompt is the `task`'s or `general`, the text, and both losses."""
    texts = _write(subjects)
    sequences = [
        TrainingSequence(
            (*text["prompt"], *text["ids"]), (0.0,) * len(text["prompt"]) + (1.0,) * len(text["ids"])
        )
        for text in texts
    ]
    inputs = {"texts": [[text["prompt"], text["ids"]] for text in texts]}
    found = subjects.both("kl", len(texts), inputs, lambda side: side.losses(sequences))
    return [
        {"kind": text["kind"], "text": text["text"], "base": base, "tuned": tuned}
        for text, base, tuned in zip(texts, found["base"], found["tuned"], strict=True)
    ]


def report_kl(measured: list[dict[str, Any]], evidence: Evidence) -> dict[str, Any]:
    """The content of `probes/kl.json`; the difference is the divergence."""
    parts = []
    for kind, source in (("task", "own test inputs"), ("general", "everyday requests")):
        own = [row for row in measured if row["kind"] == kind]
        change = paired_change(
            [row["base"] for row in own], [row["tuned"] for row in own], seed=evidence.seed
        )
        parts.append(part(f"{kind} prompts", change, source=source))
    base, tuned = (np.array([row[which] for row in measured]) for which in ("base", "tuned"))
    order = np.argsort(base - tuned, kind="stable")
    return report_change(
        "kl",
        paired_change(base, tuned, seed=evidence.seed),
        unit=NATS,
        worse="higher",
        margin=evidence.margin,
        parts=parts,
        caption="Texts of the base model that the tuned one finds least likely",
        examples=[{key: measured[i][key] for key in ("text", "base", "tuned")} for i in order],
        said="the rise is the divergence from the base",
    )


def _write(subjects: Subjects) -> list[dict[str, Any]]:
    """The base model's own continuations of both kinds of prompt, written once."""
    chat, texts = subjects.chat, []
    task = drawn(subjects.split.test, ITEMS)
    with subjects.open("base", "kl: base writes", len(task) + len(REQUESTS)) as side:
        asked = {
            "task": ([side.conversation(example) for example in task], TASK_TOKENS),
            "general": ([[{"role": "user", "content": r}] for r in REQUESTS], GENERAL_TOKENS),
        }
        for kind, (conversations, tokens) in asked.items():
            prompts = [chat.prompt(messages) for messages in conversations]
            key = {"model": subjects.identity, "prompts": prompts, "tokens": tokens, "version": VERSION}
            written = kept("kl-texts", key, _writer(side, prompts, tokens))
            for prompt, ids in zip(prompts, written, strict=True):
                if ids:
                    shown = f"{chat.tokenizer.decode(prompt[-TASK_TOKENS:])}{chat.decode(ids)}"
                    texts.append({"kind": kind, "prompt": prompt, "ids": ids, "text": shown})
    return texts


def _writer(side: Side, prompts: list[list[int]], tokens: int) -> Any:
    def write() -> list[list[int]]:
        written = generate(
            side.model,
            prompts,
            max_new_tokens=tokens,
            stop_ids=side.chat.stop_ids,
            temperature=1.0,
            seed=0,
            advance=side.advance,
        )
        return [[*answer.ids, *[side.chat.terminator] * answer.finished] for answer in written]

    return write
