"""report.html: one self-contained page that opens offline and fetches nothing.

The page carries a Content-Security-Policy that forbids every request and allows only the one
script and the one style sheet inside it, by their sha256: even text that escaped the escaping
could not run. Everything else is Jinja2 with autoescape on.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import luthier
from luthier.card import charts, numbers
from luthier.card.facts import environment_facts, key_figures, training_facts
from luthier.card.origins import warn_of
from luthier.card.reading import read_view
from luthier.card.svg import cover
from luthier.card.templates import content_policy, environment, read_asset
from luthier.card.view import Confidence, Probe, Training, View
from luthier.record import Record, write_text

WIDE, NARROW, HALF = 944, 360, 444
TOTAL = "all items"
FEW = 20  # steps that need no smoothing


def write_report(record: Record) -> Path:
    """Write `report.html` into the run folder from what is there, and return its path.

    Raises:
        RecordError: a file of the folder is there but cannot be read.
    """
    path = record / "report.html"
    write_text(path, render_report(read_view(record)))
    return path


def render_report(view: View) -> str:
    """The page as text."""
    style, script = read_asset("report.css"), read_asset("report.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            luthier_version=luthier.__version__,
            figures=key_figures(view),
            charts=_draw(view),
            training=training_facts(view.training),
            environment=environment_facts(view.environment),
            origin_warnings=warn_of(view.data.origins) if view.data else [],
            style=Markup(style),
            script=Markup(script),
            policy=content_policy(style, script),
        )
    )


def _draw(view: View) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "candidates": _draw_candidates(view),
        "curves": [],
        "rates": [],
        "confidence": [],
    }
    if view.training:
        drawn["curves"] = [_draw_curves(view.training, width) for width in (WIDE, NARROW)]
        drawn["rates"] = [_draw_rate(view.training, width) for width in (WIDE, NARROW)]
        drawn["rewarded"] = _draw_rewarded(view.training)
    drawn["abilities"] = {
        name: _draw_abilities(probe)
        for name, probe in view.probes.items()
        if any(ability.difference.value is not None for ability in probe.abilities)
    }
    if view.confidence and view.confidence.points:
        drawn["confidence"] = [_draw_confidence(view.confidence, width) for width in (WIDE, NARROW)]
    sides = [(name, n) for name, n, _ in view.data.sides if n is not None] if view.data else []
    listed = ", ".join(f"{name} {n:g}" for name, n in sides)
    drawn["split"] = Markup(
        charts.draw_shares(sides, key="split", title="Split of the examples", description=listed, width=WIDE)
    )
    return drawn


def _draw_candidates(view: View) -> list[Markup]:
    scored = [c for c in view.candidates if c.score.value is not None]
    if not scored:
        return []
    bars = [
        charts.Bar(c.name, c.score, numbers.with_interval(c.score, "percent"), c.name == view.recommended)
        for c in view.candidates
    ]
    ends = [end for c in scored for end in (c.score.value, c.score.low, c.score.high) if end is not None]
    ceiling = 1.0 if max(ends) <= 1 else None
    described = "; ".join(f"{bar.label}: {bar.note}" for bar in bars)
    return [
        Markup(
            charts.draw_intervals(
                bars,
                key=f"candidates-{width}",
                title=f"{view.metric} of every candidate",
                description=described,
                axis=_axis_percent,
                span=cover(ends, floor=0.0 if min(ends) >= 0 else None, ceiling=ceiling),
                width=width,
            )
        )
        for width in (WIDE, NARROW)
    ]


def _draw_confidence(confidence: Confidence, width: int) -> Markup:
    right = sum(is_right for _, is_right in confidence.points)
    wrong = len(confidence.points) - right
    return Markup(
        charts.draw_confidence(
            confidence.points,
            key=f"confidence-{width}",
            title=f"Confidence of {confidence.candidate} when right and when wrong",
            description=f"{right} right and {wrong} not fully right answers from 0% to 100% confidence.",
            width=width,
            threshold=confidence.threshold,
        )
    )


def _draw_curves(training: Training, width: int) -> Markup:
    last = f", last validation loss {training.validation[-1][1]:.3f}" if training.validation else ""
    return Markup(
        charts.draw_curves(
            charts.thin_curve(training.losses),
            charts.thin_curve(charts.smooth_curve(training.losses)) if len(training.losses) > 4 else [],
            training.validation,
            key=f"curves-{width}",
            title="Loss over steps",
            description=f"Training loss of {len(training.losses)} steps{last}.",
            width=width,
            height=320 if width == WIDE else 260,
            best=training.best_step,
        )
    )


def _draw_rate(training: Training, width: int) -> Markup:
    return Markup(
        charts.draw_rate(
            charts.thin_curve(training.rates),
            key=f"rate-{width}",
            title="Learning rate over steps",
            description=f"{len(training.rates)} steps.",
            width=width,
        )
    )


def _draw_rewarded(training: Training) -> list[tuple[str, Markup]]:
    """Each panel's name with its chart."""
    if training.rewarded is None:
        return []
    drawn = []
    for number, panel in enumerate(training.rewarded.panels):
        steps = len(panel.learnt) or len(panel.held_out)
        chart = charts.draw_curves(
            charts.thin_curve(panel.learnt),
            charts.thin_curve(charts.smooth_curve(panel.learnt) if len(panel.learnt) > FEW else panel.learnt),
            panel.held_out,
            key=f"rewarded-{number}",
            title=f"{panel.name} over steps",
            description=f"{steps} steps.",
            width=HALF,
            height=200,
        )
        drawn.append((panel.name, Markup(chart)))
    return drawn


def _draw_abilities(probe: Probe) -> dict[str, Markup]:
    unit, axis = probe.difference_unit, _axis_percent if probe.is_share else "{:.2f}".format
    rows = [(a.name, a.base, a.tuned) for a in probe.abilities]
    if probe.difference.value is not None:
        rows.append((TOTAL, probe.base, probe.tuned))
    show = partial(numbers.quantity, unit=probe.value_unit)
    levels = [level for _, *pair in rows for level in pair if level is not None]
    bars = [
        charts.Bar(a.name, a.difference, numbers.with_interval(a.difference, unit)) for a in probe.abilities
    ]
    if probe.difference.value is not None:
        total = numbers.with_interval(probe.difference, unit)
        bars.append(charts.Bar(TOTAL, probe.difference, total, strong=True))
    ends = [
        v for bar in bars for v in (bar.interval.value, bar.interval.low, bar.interval.high) if v is not None
    ]
    marks = [charts.Mark(0.0, "no change")]
    if probe.margin is not None and probe.is_share:
        marks.append(charts.Mark(probe.margin if probe.higher_is_worse else -probe.margin, "margin"))
    reached = [*ends, *(mark.value for mark in marks)]
    name = probe.name.replace("_", " ")
    return {
        "levels": Markup(
            charts.draw_dumbbells(
                rows,
                key=f"levels-{probe.name}",
                title=f"{name}: base and tuned, per ability",
                description="; ".join(f"{label}: {show(b)} to {show(t)}" for label, b, t in rows),
                axis=axis,
                show=show,
                span=cover(levels, floor=0.0, ceiling=1.0 if probe.is_share else None),
                width=HALF,
            )
        ),
        "differences": Markup(
            charts.draw_intervals(
                bars,
                key=f"differences-{probe.name}",
                title=f"{name}: tuned minus base, per ability",
                description="; ".join(f"{bar.label}: {bar.note}" for bar in bars),
                axis=(lambda v: numbers.fixed(v, 0, scale=100, signed=True)) if probe.is_share else axis,
                span=cover(reached),
                width=HALF,
                marks=marks,
            )
        ),
    }


def _axis_percent(value: float) -> str:
    return f"{value * 100:.0f}%"


@cache
def _environment() -> jinja2.Environment:
    made = environment(autoescape=True)
    made.filters["loss"] = lambda value: numbers.quantity(numbers.finite(value), "")
    return made
