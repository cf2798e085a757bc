"""sweep.html: one self-contained page with the charts and the table of a sweep; it fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from luthier.card.numbers import duration
from luthier.record import Record, write_text
from luthier.sweep.chart import draw_courses, draw_outcomes, show_value
from luthier.sweep.trials import STATES

WIDE, NARROW = 944, 360
MORE_STYLE = (
    "tr.best th, tr.best td { font-weight: 600; color: var(--pick); } .chart circle { cursor: help; }"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>Sweep {{ name }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header class="banner">
  <p class="eyebrow"><span class="brand">Luthier</span> <span>{{ name }}</span> <span>{{ model }}</span></p>
  <h1>{{ metric | capitalize }} {{ best.value | number }}</h1>
  <p class="headline">Trial {{ best.number }} of {{ rows | length }} is the best:
    {% for key in keys -%}
    {{ key }} {{ best.changes[key] | shown }}{{ "" if loop.last else ", " }}
    {%- endfor %}.</p>
  <p class="lead">{{ result.steps }} of {{ result.planned_steps }} planned steps were trained, in
    {{ result.seconds | duration }}. The metric chose this trial, so it flatters it; the test side was not
    looked at. The recipe of the best trial is best.yaml.</p>
</header>
<section id="outcomes">
  <h2>By value</h2>
  <p class="lead">Filled: trained to the end. Hollow: stopped early, at its last comparison.</p>
  {% for axis, drawn in outcomes %}<h3>{{ axis }}</h3><figure>{{ both(drawn) }}</figure>{% endfor %}
</section>
<section id="courses">
  <h2>By step</h2>
  <p class="lead">{{ metric | capitalize }} over the share of a trial's own steps
    {%- for rung in result.rungs %}; {{ rung.keep }} went on after {{ "%.0f" % (100 * rung.share) }}%
    {%- endfor %}.</p>
  <figure>{{ both(courses) }}</figure>
</section>
<section id="trials">
  <h2>Trials</h2>
  <div class="scroll"><table class="stack">
  <thead><tr><th scope="col">trial</th>{% for key in keys %}<th scope="col">{{ key }}</th>{% endfor %}
    <th scope="col">{{ metric }}</th><th scope="col">steps</th><th scope="col">time</th>
    <th scope="col">state</th><th scope="col">why</th></tr></thead>
  <tbody>
  {% for row in rows %}
  <tr{% if row.number == best.number %} class="best"{% endif %}><th scope="row">{{ row.number }}</th>
    {% for key in keys %}<td data-label="{{ key }}">{{ row.changes[key] | shown }}</td>{% endfor %}
    <td data-label="{{ metric }}">{{ row.value | number }}</td>
    <td data-label="steps">{{ row.steps }} of {{ row.planned_steps }}</td>
    <td data-label="time">{{ row.seconds | duration }}</td>
    <td data-label="state">{{ states[row.state] }}</td><td data-label="why">{{ row.reason or "" }}</td></tr>
  {% endfor %}
  </tbody></table></div>
</section>
</main>
</body>
</html>
"""
BOTH = """{% macro both(drawn) -%}
<div class="wide">{{ drawn[0] }}</div><div class="narrow">{{ drawn[1] }}</div>
{%- endmacro -%}
"""


def write_page(record: Record, result: Mapping[str, Any], *, name: str, model: str) -> Path:
    """Write `sweep.html` from the content of `sweep.json`; returns its path."""
    path = record / "sweep.html"
    write_text(path, render_page(result, name=name, model=model))
    return path


def render_page(result: Mapping[str, Any], *, name: str, model: str) -> str:
    """The page as text."""
    rows = {row["number"]: row for row in result["trials"]}
    metric, best = result["metric"].replace("_", " "), result["best"]
    given: dict[str, Any] = {
        "best": best,
        "metric": metric,
        "higher": result["metric"] == "validation_score",
    }
    outcomes = [
        (
            axis["key"],
            [
                Markup(
                    draw_outcomes(list(rows.values()), axis, key=f"by-{place}-{width}", width=width, **given)
                )
                for width in (WIDE, NARROW)
            ],
        )
        for place, axis in enumerate(result["axes"])
    ]
    courses = [
        Markup(draw_courses(list(rows.values()), key=f"steps-{width}", width=width, **given))
        for width in (WIDE, NARROW)
    ]
    style = _style()
    return _template().render(
        name=name,
        model=model,
        result=result,
        metric=metric,
        best=rows[best],
        rows=[rows[number] for number in result["ranking"]],
        keys=[axis["key"] for axis in result["axes"]],
        states=STATES,
        outcomes=outcomes,
        courses=courses,
        style=Markup(style),
        policy=_policy(style),
    )


def show_number(value: float | None) -> str:
    """The metric in a table; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def _style() -> str:
    css = resources.files("luthier.card").joinpath("report.css").read_text(encoding="utf-8").strip()
    return f"{css}\n{MORE_STYLE}"


def _policy(style: str) -> str:
    """No request and no script; this one style sheet."""
    pin = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{pin}'; base-uri 'none'; form-action 'none'"


@cache
def _template() -> jinja2.Template:
    made = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"number": show_number, "shown": show_value, "duration": duration}
    return made.from_string(BOTH + PAGE)
