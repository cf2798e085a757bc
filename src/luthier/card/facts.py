"""What the report and the card both say of a run: the key figures, and the facts of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from luthier.card import numbers
from luthier.card.meanings import why_unprobed
from luthier.card.view import Training, View
from luthier.recipe.method_defaults import COMPARED

# keys of `adapter` that go without saying, and those that say nothing about some kinds
UNSAID = {"layers": "all", "base": "exact"}
USELESS = {
    "rank": ("prefix", "prompt", "full"),
    "alpha": ("prefix", "prompt", "full"),
    "virtual_tokens": ("lora", "rslora", "dora", "full"),
}


@dataclass(frozen=True)
class Figure:
    """A key figure of the banner."""

    label: str
    value: str
    detail: str

    @property
    def is_measured(self) -> bool:
        """Whether the record holds the number."""
        return self.value != numbers.NOT_MEASURED


def key_figures(view: View) -> list[Figure]:
    """Gain, forgetting, cost per request, examples and training time; each may be `not measured`."""
    return [
        _gain(view),
        _forgetting(view),
        _cost(view),
        _examples(view),
        _time(view.training),
    ]


def _gain(view: View) -> Figure:
    pair = view.gain
    if pair is None or pair.difference.value is None:
        why = "the tuned model was not compared with an alternative"
        return Figure("Gain from tuning", numbers.NOT_MEASURED, why)
    p = numbers.probability(pair.p if pair.p_adjusted is None else pair.p_adjusted)
    parts = [numbers.bounds(pair.difference, "points"), f"over {pair.b}, {p}"]
    return Figure("Gain from tuning", numbers.points(pair.difference.value), " ".join(filter(None, parts)))


def _forgetting(view: View) -> Figure:
    label, probe = "Change on public tasks", view.probes.get("forgetting")
    if probe is None or probe.difference.value is None:
        unasked = why_unprobed(view.method) if view.method in COMPARED else "the forgetting probe was not run"
        return Figure(label, numbers.NOT_MEASURED, probe.reason if probe else unasked)
    value = numbers.quantity(probe.difference.value, probe.difference_unit)
    detail = f"{numbers.bounds(probe.difference, probe.difference_unit)} on {numbers.count(probe.n, 'item')}"
    return Figure(label, value, detail.strip())


def _cost(view: View) -> Figure:
    label = "Prompt per request"
    mine, other = view.candidate("tuned") or view.candidate(view.recommended), view.alternative
    if mine is None or mine.prompt_tokens is None:
        told = "texts are read, not asked" if view.method == "cpt" else "prompt tokens were not recorded"
        return Figure(label, numbers.NOT_MEASURED, told)
    detail = f"{mine.name}, {numbers.duration(mine.seconds)}"
    if other is not None and other is not mine and other.prompt_tokens is not None:
        tokens = numbers.count(other.prompt_tokens, "token")
        detail += f"; {other.name}: {tokens}, {numbers.duration(other.seconds)}"
    return Figure(label, numbers.count(mine.prompt_tokens, "token"), detail)


def _examples(view: View) -> Figure:
    sides = [(name, n) for name, n, _ in view.data.sides] if view.data else []
    known = [n for _, n in sides if n is not None]
    if not known:
        return Figure("Examples", numbers.NOT_MEASURED, "the split was not recorded")
    detail = ", ".join(f"{numbers.count(n)} {name}" for name, n in sides if n is not None)
    return Figure("Examples", numbers.count(sum(known)), detail)


def _time(training: Training | None) -> Figure:
    if training is None or training.seconds is None:
        return Figure(
            "Training time", numbers.NOT_MEASURED, "no training in this record" if training is None else ""
        )
    steps, epochs = (numbers.finite(training.summary.get(k)) for k in ("steps", "epochs"))
    parts = [numbers.count(n, noun) for n, noun in ((epochs, "epoch"), (steps, "step")) if n is not None]
    return Figure("Training time", numbers.duration(training.seconds), ", ".join(parts))


def training_facts(training: Training | None) -> list[tuple[str, str]]:
    """What train/summary.json says, as names and texts; what it does not say is left out."""
    if training is None:
        return []
    row = training.summary
    number = {key: numbers.finite(row.get(key)) for key in row}
    adapter = row.get("adapter")
    facts = [("Method", str(row.get("method") or ""))]
    if isinstance(adapter, Mapping):
        facts.append(("Adapter", describe_adapter(adapter)))
    trainable, total = number.get("trainable_parameters"), number.get("total_parameters")
    share = (
        f" ({numbers.percent(trainable / total)} of {numbers.count(total)})" if trainable and total else ""
    )
    facts += [
        ("Trained parameters", numbers.count(trainable) + share),
        ("Examples", numbers.count(number.get("examples"))),
        (
            "Length",
            f"{numbers.count(number.get('epochs'), 'epoch')}, {numbers.count(number.get('steps'), 'step')}",
        ),
        ("Kept step", numbers.count(training.best_step)),
        ("Peak learning rate", numbers.rate(number.get("learning_rate"))),
        ("Tokens (useful)", numbers.count(number.get("tokens"))),
        ("Tokens computed", numbers.count(number.get("executed_tokens"))),
        ("Tokens with loss", numbers.count(number.get("trained_tokens"))),
        ("Speed", f"{numbers.count(number.get('tokens_per_second'))} tokens/s"),
        ("Peak memory", numbers.size(number.get("peak_memory_bytes"))),
        (
            "Model on disk" if is_whole_model(adapter) else "Adapter on disk",
            numbers.size(number.get("adapter_bytes")),
        ),
        ("Stopped", str(row.get("stopped") or "")),
    ]
    return [(name, value) for name, value in facts if value and numbers.NOT_MEASURED not in value]


def describe_adapter(adapter: Mapping[str, Any]) -> str:
    """What was trained in one line: `lora, rank 16, alpha 32`, without keys that the kind has no use for."""
    kind = adapter.get("kind")
    parts = [] if kind is None else [str(kind)]
    for key, value in adapter.items():
        if key == "kind" or value is None or value == UNSAID.get(key) or kind in USELESS.get(key, ()):
            continue
        number = numbers.finite(value)
        parts.append(f"{key.replace('_', ' ')} {show_value(value) if number is None else f'{number:g}'}")
    return ", ".join(parts)


def is_whole_model(adapter: Any) -> bool:
    """Whether all weights were trained, so that what was saved needs no base model."""
    return isinstance(adapter, Mapping) and adapter.get("kind") == "full"


def environment_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """environment.json as names and texts, one level deep."""
    rows: list[tuple[str, str]] = []
    for key, value in environment.items():
        if key == "memory_bytes":
            rows.append(("memory", numbers.size(numbers.finite(value))))
        elif isinstance(value, Mapping):
            rows += [(f"{key}: {name}", show_value(part)) for name, part in value.items()]
        else:
            rows.append((key, show_value(value)))
    return rows


def as_sentence(text: str) -> str:
    """A reason as a sentence; a first word that is a name (`few_shot`, `p`) keeps its small letter."""
    text = text.strip()
    first = text.split(" ", 1)[0]
    is_word = len(first) > 1 and first.rstrip(",;:").isalpha()
    head = text[:1].upper() + text[1:] if is_word else text
    return head if not head or head[-1] in ".!?" else f"{head}."


def show_value(value: Any) -> str:
    """A recorded value as one line."""
    if value is None:
        return "none"
    return (
        value
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
    )
