"""Drift on the base model's own words: how surprised the tuned model is by what the base would say.

The base writes a short text for each of a few everyday requests, sampled at temperature 1 and
kept. The mean over texts of the rise of the negative log-likelihood per token estimates
KL(base || tuned) on general prompts, which predicts forgetting (arXiv 2509.04259).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from luthier.chat import ChatFormat
from luthier.forest import score
from luthier.forest.logprobs import Model
from luthier.models.kept import kept
from luthier.own_words import own_answers
from luthier.probes.finding import judge_loss
from luthier.progress import Advance
from luthier.stats import compare, stand

TOKENS = 48
SHOWN = 3
REQUESTS = (
    "How do I keep fresh herbs from wilting?",
    "Explain in a few sentences why the sky is blue.",
    "Write a short note to thank a neighbour.",
    "What should I pack for a weekend in the mountains?",
    "Give me three tips for sleeping better.",
    "Tell a very short story about a lighthouse.",
    "What is the difference between a lake and a pond?",
    "How does a bicycle stay upright?",
    "Suggest a simple dinner with rice and eggs.",
    "Who was Marie Curie?",
    "What do plants need to grow?",
    "How can I start learning the piano as an adult?",
    "Describe a rainy afternoon in a small town.",
    "Why do we have leap years?",
    "What is a good way to study for an exam?",
    "How is bread made?",
    "Explain what inflation means.",
    "Write two sentences about the sea.",
    "What does a librarian do all day?",
    "How do I write a polite reminder for a late reply?",
    "Name some animals that live in the desert and how they cope.",
    "What are the rules of tic-tac-toe?",
    "How do I remove a coffee stain from a shirt?",
    "What happens when water boils?",
)

Texts = list[dict[str, Any]]


def base_own_text(model: Model, chat: ChatFormat, identity: str, advance: Advance) -> Texts:
    """Texts of the base model with its own log-probabilities, written once per model.

    Returns:
        Per request: `prompt` and `ids` (token ids), `text`, and `nll` (nats per token).
    """
    texts = own_answers(model, chat, identity, REQUESTS, max_new_tokens=TOKENS, seed=0, advance=advance)
    inputs = {"model": identity, "texts": [[text["prompt"], text["ids"]] for text in texts]}
    losses: list[float] = kept("own-words-nll", inputs, lambda: own_text_nll(model, texts))
    return [text | {"nll": loss} for text, loss in zip(texts, losses, strict=True)]


def own_text_nll(model: Model, texts: Texts, advance: Advance | None = None) -> list[float]:
    """Negative log-likelihood per token of each text, in nats."""
    sequences = [[*text["prompt"], *text["ids"]] for text in texts]
    needed = [[False] * (len(text["prompt"]) - 1) + [True] * len(text["ids"]) for text in texts]
    return [-float(values.mean()) for values in score(model, sequences, needed=needed, advance=advance)]


def report_own_text(texts: Texts, tuned: Sequence[float], *, margin: float, seed: int) -> dict[str, Any]:
    """The content of `probes/own_text.json`; base and tuned are losses, so higher is worse."""
    base = [text["nll"] for text in texts]
    comparison = compare(tuned, base, seed=seed)
    one_sided = stand(tuned, base, margin=margin, seed=seed)
    finding = judge_loss(comparison.difference, one_sided.low, one_sided.high, margin)
    rise = np.array(tuned) - np.array(base)
    return {
        "probe": "own_text",
        "unit": "nats per token",
        "n": len(texts),
        "base": float(np.mean(base)) if base else None,
        "tuned": float(np.mean(tuned)) if base else None,
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "one_sided_high": one_sided.high,
        "p": comparison.p,
        "flips": None,
        "margin": margin,
        "finding": finding,
        "reason": _reason(finding, one_sided.high, margin),
        "examples": [
            {"text": texts[i]["text"], "base": base[i], "tuned": float(tuned[i])}
            for i in np.argsort(-rise)[:SHOWN]
        ],
    }


def _reason(finding: str, high: float | None, margin: float) -> str:
    if high is None:
        return "the difference is undefined"
    bound = (
        f"the base's own text becomes at most {max(0.0, high):.2f} nats per token less likely (one-sided 95%)"
    )
    return {
        "within_margin": f"{bound}, inside the margin of {margin:.2f}",
        "worse": f"the base's own text became less likely by {margin:.2f} nats per token or more",
        "not_powered": f"{bound}: too few texts to rule out a rise of {margin:.2f}",
    }.get(finding, "the probe failed")
