"""Forgetting: public multiple-choice items, answered by base and tuned.

An item's score is the probability the model gives to the right option among the options
(softmax over the options' summed log-probabilities): the accuracy expected of an answer drawn from
the model. It moves with every change of the model, where right/wrong moves only at a flip, so that
the same margin needs several times fewer items. Flips of the most likely option are reported too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase as Tokenizer

from luthier.forest import score
from luthier.forest.logprobs import Model
from luthier.models.kept import kept
from luthier.probes.finding import judge_loss
from luthier.probes.suites import ChoiceItem
from luthier.progress import Advance
from luthier.stats import compare, stand

Logps = list[list[float]]
SHOWN = 5


def option_logprobs(
    model: Model, tokenizer: Tokenizer, items: Sequence[ChoiceItem], advance: Advance
) -> Logps:
    """Summed log-probability of every option of every item after its question."""
    sequences: list[list[int]] = []
    needed: list[list[bool]] = []
    for item in items:
        prompt = tokenizer(item.text).input_ids
        for option in item.options:
            ids = tokenizer(f" {option}", add_special_tokens=False).input_ids
            sequences.append([*prompt, *ids])
            needed.append([False] * (len(prompt) - 1) + [True] * len(ids))
    sums = iter([float(values.sum()) for values in score(model, sequences, needed=needed, advance=advance)])
    return [[next(sums) for _ in item.options] for item in items]


def base_forgetting(
    model: Model, tokenizer: Tokenizer, identity: str, items: Sequence[ChoiceItem], advance: Advance
) -> Logps:
    """`option_logprobs` of a base model, computed once per model and set of items."""
    inputs = {"model": identity, "items": [[item.text, item.options] for item in items], "version": 1}
    result: Logps = kept("forgetting", inputs, lambda: option_logprobs(model, tokenizer, items, advance))
    return result


def report_forgetting(
    items: Sequence[ChoiceItem], base: Logps, tuned: Logps, *, margin: float, seed: int
) -> dict[str, Any]:
    """The content of `probes/forgetting.json`: paired over items, with a non-inferiority finding."""
    p_base, p_tuned = chance_of_right(items, base), chance_of_right(items, tuned)
    right_base = np.array([int(np.argmax(row)) == item.right for item, row in zip(items, base, strict=True)])
    right_tuned = np.array(
        [int(np.argmax(row)) == item.right for item, row in zip(items, tuned, strict=True)]
    )
    comparison = compare(p_tuned, p_base, seed=seed)
    one_sided = stand(p_tuned, p_base, margin=margin, seed=seed)
    loss = None if comparison.difference is None else -comparison.difference
    least = None if one_sided.high is None else -one_sided.high
    most = None if one_sided.low is None else -one_sided.low
    finding = judge_loss(loss, least, most, margin)
    lost = np.flatnonzero(right_base & ~right_tuned)
    gained = np.flatnonzero(~right_base & right_tuned)
    return {
        "probe": "forgetting",
        "unit": "expected accuracy",
        "n": len(items),
        "base": float(p_base.mean()),
        "tuned": float(p_tuned.mean()),
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "one_sided_low": one_sided.low,
        "p": comparison.p,
        "flips": {"lost": len(lost), "gained": len(gained)},
        "accuracy": {"base": float(right_base.mean()), "tuned": float(right_tuned.mean())},
        "margin": margin,
        "finding": finding,
        "reason": _reason(finding, one_sided.low, margin),
        "abilities": _by_ability(items, p_base, p_tuned, seed),
        "examples": _flips(items, base, tuned, [*lost[:SHOWN], *gained[:SHOWN]]),
    }


def chance_of_right(items: Sequence[ChoiceItem], logps: Logps) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probability of the right option among the options of each item, shape (n,)."""
    return np.array(
        [
            torch.softmax(torch.tensor(row, dtype=torch.float64), dim=0)[item.right].item()
            for item, row in zip(items, logps, strict=True)
        ]
    )


def _reason(finding: str, low: float | None, margin: float) -> str:
    if low is None:
        return "the difference is undefined"
    most = f"at most {-low:.1%}" if -low >= 0.001 else "under 0.1%"
    bound = f"the loss is {most} (one-sided 95%)" if low < 0 else "nothing was lost (one-sided 95%)"
    return {
        "within_margin": f"{bound}, inside the margin of {margin:.1%}",
        "worse": f"the loss is real and not inside the margin of {margin:.1%}",
        "not_powered": f"{bound}: too few items to rule out a loss of {margin:.1%}",
    }.get(finding, "the probe failed")


def _by_ability(
    items: Sequence[ChoiceItem],
    base: np.ndarray[Any, np.dtype[np.float64]],
    tuned: np.ndarray[Any, np.dtype[np.float64]],
    seed: int,
) -> list[dict[str, Any]]:
    rows = []
    for ability, suite in dict.fromkeys((item.ability, item.suite) for item in items):
        chosen = np.array([item.ability == ability for item in items])
        comparison = compare(tuned[chosen], base[chosen], seed=seed)
        rows.append(
            {
                "ability": ability,
                "suite": suite,
                "n": int(chosen.sum()),
                "base": float(base[chosen].mean()),
                "tuned": float(tuned[chosen].mean()),
                "difference": comparison.difference,
                "low": comparison.low,
                "high": comparison.high,
            }
        )
    return rows


def _flips(
    items: Sequence[ChoiceItem], base: Logps, tuned: Logps, chosen: Sequence[int]
) -> list[dict[str, Any]]:
    return [
        {
            "question": items[i].question,
            "options": list(items[i].options),
            "reference": items[i].options[items[i].right],
            "base": items[i].options[int(np.argmax(base[i]))],
            "tuned": items[i].options[int(np.argmax(tuned[i]))],
            "kind": "lost" if int(np.argmax(base[i])) == items[i].right else "gained",
        }
        for i in chosen
    ]
