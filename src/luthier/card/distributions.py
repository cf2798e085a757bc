"""How the examples are spread: lengths in characters and tokens, turns, labels; as charts with captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from luthier.card.audit_groups import place_of
from luthier.card.audit_masks import sequences_of
from luthier.card.charts import Mark
from luthier.card.histogram import bin_values, draw_histogram, draw_tally
from luthier.card.masked import Masked
from luthier.card.numbers import count
from luthier.errors import DataError
from luthier.examples.answers import kind_of_answers, parse_structure
from luthier.examples.example import Example

if TYPE_CHECKING:
    from luthier.chat import ChatFormat, TrainingSequence

MOST_TOKENISED = 2000
MOST_TOLD = 2000  # inputs whose language is asked for
NAMES_SHOWN = 14
FIELDS_SHOWN = 6
_FIELD_VALUES = 12


@dataclass(frozen=True)
class Distribution:
    """A chart with its heading and a line under it."""

    title: str
    caption: str
    drawn: Markup


def draw_distributions(
    examples: Sequence[Example], chat: ChatFormat | None, system: str | None, limit: int | None
) -> list[Distribution]:
    """Every distribution that these examples have.

    Args:
        examples: at least one.
        chat: counts tokens; without it there are none.
        system: given to examples without their own.
        limit: tokens that are trained on whole, marked in the chart of whole examples.
    """
    return [
        *_characters(examples),
        *(() if chat is None else _tokens(examples, chat, system, limit)),
        *_turns(examples),
        *_answers([example for example in examples if example.wanted]),
        *_languages(examples),
    ]


def _characters(examples: Sequence[Example]) -> list[Distribution]:
    found = []
    asked = [example for example in examples if example.request]
    if asked:
        found.append(_lengths("Requests, characters", asked, [_request_letters(e) for e in asked]))
    title = "Answers, characters" if asked else "Texts, characters"
    found.append(_lengths(title, examples, [len(example.answer) for example in examples]))
    return found


def _request_letters(example: Example) -> int:
    return sum(len(m.text) for m in example.request if m.role != "system")


def _tokens(
    examples: Sequence[Example], chat: ChatFormat, system: str | None, limit: int | None
) -> list[Distribution]:
    """Of evenly spaced examples where there are very many: tokenising all would take minutes."""
    step = -(-len(examples) // MOST_TOKENISED)
    counted: list[tuple[Example, TrainingSequence]] = []
    for example in examples[::step]:
        try:
            sequences = sequences_of(example, chat, system)
        except DataError:
            continue  # the masks say why
        counted.append((example, sequences[-1]))
    if not counted:
        return []
    members = [example for example, _ in counted]
    note = "" if step == 1 else f" Of {count(len(members))} examples, evenly spaced."
    found = []
    asked = [(e, s) for e, s in counted if e.request]
    if asked:
        prompts = [s.prompt_tokens for _, s in asked]
        answers = [len(s.ids) - s.prompt_tokens for _, s in asked]
        who = [e for e, _ in asked]
        found = [
            _lengths("Requests, tokens with template", who, prompts, note),
            _lengths("Answers, tokens", who, answers, note),
        ]
    return [
        *found,
        _lengths("Whole examples, tokens", members, [len(s.ids) for _, s in counted], note, limit),
    ]


def _lengths(
    title: str, members: Sequence[Example], values: Sequence[int], note: str = "", limit: int | None = None
) -> Distribution:
    ordered = sorted(values)
    n = len(ordered)
    longest = max(range(n), key=values.__getitem__)
    said = (
        f"Median {count(ordered[n // 2])}, 95% up to {count(ordered[min(n - 1, int(0.95 * n))])}, "
        f"longest {count(ordered[-1])} ({place_of(members[longest])}).{note}"
    )
    mark = None
    if limit is not None:
        over = sum(value > limit for value in values)
        mark = Mark(limit, f"limit {limit:,}")
        said += f" The limit is {count(limit)}; {count(over) if over else 'none'} beyond it."
    key = "-".join(title.lower().replace(",", "").split())
    drawn = draw_histogram(bin_values(values), key=key, title=title, description=said, limit=mark)
    return Distribution(title, said, Markup(drawn))


def _turns(examples: Sequence[Example]) -> list[Distribution]:
    turns = Counter(sum(m.role != "system" for m in e.messages) for e in examples if e.request)
    if len(turns) < 2:
        return []
    rows = [(f"{n} turns", times) for n, times in sorted(turns.items())]
    return [_tally("Turns", rows, "Without the system prompt.")]


def _answers(examples: Sequence[Example]) -> list[Distribution]:
    """Labels; or the fields of JSON answers that have few values."""
    asked = [example for example in examples if example.request]
    kind = kind_of_answers(asked)
    if kind == "label":
        return [_tally("Labels", _ranked(example.answer.strip() for example in asked))]
    if kind != "json":
        return []
    rows = [value for e in asked if isinstance(value := parse_structure(e.answer), dict)]
    found = []
    for key in dict.fromkeys(key for row in rows for key in row):
        said = [_spell(row[key]) for row in rows if key in row and not isinstance(row[key], dict | list)]
        if 2 <= len(set(said)) <= min(_FIELD_VALUES, len(said) // 3):
            found.append(_tally(f"Field {_hidden(key)}", _ranked(said)))
    return found[:FIELDS_SHOWN]


def _spell(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _languages(examples: Sequence[Example]) -> list[Distribution]:
    """Of the inputs; texts of a few words, code and JSON are in no language."""
    from luthier.audit.language_mix import languages_of
    from luthier.audit.languages import NAMES

    step = -(-len(examples) // MOST_TOLD)
    inputs = [example.input for example in examples[::step]]
    try:
        known = languages_of(inputs)
    except ImportError:
        return []
    if not known:
        return []
    rows = _ranked(NAMES.get(language, language) for language in known.values())
    untold = count(len(inputs) - len(known))
    note = f"Of {count(len(inputs))} inputs, {untold} are too short to tell, or no prose."
    return [_tally("Languages of the inputs", rows, note)]


def _ranked(names: Iterable[str]) -> list[tuple[str, int]]:
    """The most frequent, and the rest as one row."""
    ranked = Counter(names).most_common()
    shown = [(_hidden(" ".join(name.split())), n) for name, n in ranked[:NAMES_SHOWN]]
    rest = ranked[NAMES_SHOWN:]
    return [*shown, (f"{count(len(rest))} others", sum(n for _, n in rest))] if rest else shown


def _hidden(text: str) -> str:
    return Masked([text]).hide(text)


def _tally(title: str, rows: Sequence[tuple[str, int]], note: str = "") -> Distribution:
    key = "tally-" + "-".join(title.lower().split())
    said = "; ".join(f"{name}: {n}" for name, n in rows)
    return Distribution(title, note, Markup(draw_tally(rows, key=key, title=title, description=said)))
