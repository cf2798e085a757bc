"""audit.html: what the audit found, in one self-contained page that opens offline and fetches nothing.

Like report.html it forbids every request and every script but its own. Personal data and secrets are
masked on it, because a page is passed on more easily than a file of examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

import luthier
from luthier.audit import Finding
from luthier.audit.overview import say_power
from luthier.card.audit_groups import ORDER, Group, group_findings
from luthier.card.audit_masks import Mask, read_masks
from luthier.card.charts import draw_shares
from luthier.card.distributions import draw_distributions
from luthier.card.facts import Figure
from luthier.card.numbers import count
from luthier.card.plain_text import clean_text
from luthier.card.templates import content_policy, environment, read_asset
from luthier.examples.example import Example
from luthier.record import write_text

if TYPE_CHECKING:
    from luthier.chat import ChatFormat

MOST_BYTES = 4_800_000
_FINDINGS_SHARE, _MASKS_SHARE = 0.6, 0.2
_SEVERITIES = {"error": "error", "warning": "warning", "info": "note"}


@dataclass(frozen=True)
class Checked:
    """What the page is made of.

    Attributes:
        name: of the file or the run.
        told: the content of audit.json.
        findings: those of the audit.
        sides: the examples that were looked at, or those of them that are at hand.
        chat: how the model writes conversations; None when no model was chosen.
        model: its name.
        system: given to examples without their own.
        limit: tokens that are trained on whole.
        notes: what the reader should know besides, one sentence each.
    """

    name: str
    told: Mapping[str, Any]
    findings: Sequence[Finding]
    sides: Mapping[str, Sequence[Example]]
    chat: ChatFormat | None = None
    model: str = ""
    system: str | None = None
    limit: int | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def write_audit_page(path: Path, checked: Checked) -> Path:
    """Write the page atomically; returns its path."""
    write_text(path, render_audit_page(checked))
    return path


def render_audit_page(checked: Checked, most_bytes: int = MOST_BYTES) -> str:
    """The page as text, of at most `most_bytes` in UTF-8: what does not fit is counted on it."""
    room = most_bytes
    while True:
        page = _render(checked, room)
        if len(page.encode()) <= most_bytes or room < 1000:
            return page
        room = int(room * 0.6)


def _render(checked: Checked, room: int) -> str:
    examples = [example for side in checked.sides.values() for example in side]
    several = sum(bool(side) for side in checked.sides.values()) > 1
    sides = _sides(checked.sides) if several else {}
    counts = checked.told["summary"]
    groups = group_findings(checked.findings, counts, sides, int(_FINDINGS_SHARE * room))
    masks: list[Mask] = []
    unmasked = 0
    if checked.chat is not None:
        masks, unmasked = read_masks(
            examples, checked.findings, checked.chat, checked.system, int(_MASKS_SHARE * room)
        )
    style = read_asset("report.css") + "\n" + read_asset("audit.css")
    script = read_asset("audit.js")
    return (
        _environment()
        .get_template("audit.html.j2")
        .render(
            name=clean_text(checked.name),
            model=clean_text(checked.model),
            title=_title(checked.told),
            worst=_worst(groups),
            read=[_say_read(file) for file in checked.told.get("read", ())],
            power=say_power(checked.told.get("power")),
            figures=_figures(checked.told),
            notes=[*checked.notes, *_sampled(checked.told), *(checked.chat.notes if checked.chat else ())],
            groups=groups,
            clean=[check for check, n in counts.items() if not n],
            failed=checked.told["failed"],
            skipped=checked.told.get("skipped", ()),
            split=_split(checked.sides) if several else "",
            counts=[(side, len(own)) for side, own in checked.sides.items() if own] if several else [],
            distributions=draw_distributions(examples, checked.chat, checked.system, checked.limit),
            masks=masks,
            masked_places={mask.place: number for number, mask in enumerate(masks)},
            unmasked=unmasked,
            severities=_SEVERITIES,
            luthier_version=luthier.__version__,
            style=Markup(style),
            script=Markup(script),
            policy=content_policy(style, script),
        )
    )


def _sides(sides: Mapping[str, Sequence[Example]]) -> dict[str, str]:
    """Side by place; a place that is on two sides has both."""
    found: dict[str, list[str]] = {}
    for side, examples in sides.items():
        for example in examples:
            own = found.setdefault(example.where, [])
            if side not in own:
                own.append(side)
    return {where: ", ".join(own) for where, own in found.items()}


def _title(told: Mapping[str, Any]) -> str:
    found = told["severities"]
    said = [count(found[kind], word) for kind, word in _SEVERITIES.items() if found[kind]]
    if said:
        return ", ".join(said)
    return "The checks that ran found nothing" if told["failed"] else "Nothing was found"


def _worst(groups: Sequence[Group]) -> str:
    severities = {group.severity for group in groups}
    return next((kind for kind in ORDER if kind in severities), "none")


def _say_read(file: Mapping[str, Any]) -> str:
    name = PurePath(str(file["file"])).name
    left_out = file.get("left_out")
    more = f"; {count(left_out, 'row')} left out" if left_out else ""
    return clean_text(f"{name}: {count(file['examples'], 'example')}, read as {file['described']}{more}")


def _figures(told: Mapping[str, Any]) -> list[Figure]:
    left_out = sum(file.get("left_out") or 0 for file in told.get("read", ()))
    detail = f"{count(left_out, 'row')} left out" if left_out else ""
    found = told["severities"]
    return [
        Figure("Examples", count(told["examples"]), detail),
        *(Figure(f"{word.capitalize()}s", count(found[kind]), "") for kind, word in _SEVERITIES.items()),
        Figure("Checks that ran", count(len(told["summary"])), _unrun(told)),
    ]


def _unrun(told: Mapping[str, Any]) -> str:
    failed, skipped = len(told["failed"]), len(told.get("skipped", ()))
    said = [f"{failed} could not run"] * bool(failed) + [f"{skipped} had nothing to look at"] * bool(skipped)
    return ", ".join(said)


def _sampled(told: Mapping[str, Any]) -> list[str]:
    rows = told.get("sampled", {}).items()
    return [f"{check.replace('_', ' ')} looked at {count(n, 'example')}, a sample" for check, n in rows]


def _split(sides: Mapping[str, Sequence[Example]]) -> Markup:
    parts = [(side, float(len(own))) for side, own in sides.items() if own]
    said = ", ".join(f"{side} {n:g}" for side, n in parts)
    return Markup(draw_shares(parts, key="sides", title="Sides", description=said, width=944))


@cache
def _environment() -> jinja2.Environment:
    made = environment(autoescape=True)
    made.filters["clean"] = clean_text
    return made
