"""An audit on one screen: a line or a few for each check that found something, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from rich.text import Text

from luthier.cli.screen import console

ORDER = {"error": 0, "warning": 1, "info": 2}
MARKS = {"error": ("✕", "red"), "warning": ("!", "yellow"), "info": ("·", "dim")}
WORDS = {"error": "error", "warning": "warning", "info": "note"}
SCREEN_LINES, LEAST_LINES, MOST_LINES = 38, 12, 4  # in all; for what was found; for one check
BESIDES = 5  # two empty lines, where the files are, and progress
CLEAN_LINES = 2
FILES_SHOWN, FAILED_SHOWN, PLACES_SHOWN = 4, 3, 3
_NAME, _COUNT = 21, 6  # columns


@dataclass(frozen=True)
class Found:
    """What one check found: its worst finding, how many there are, and all their places."""

    check: str
    worst: Mapping[str, Any]
    count: int
    places: tuple[tuple[str, int], ...]


def print_audit(audit: Mapping[str, Any], *, every: bool = False) -> None:
    """What was read, what each check found, what was clean and what could not run.

    Args:
        audit: the content of `audit.json`.
        every: list every finding in full instead.
    """
    head, rest = _read_lines(audit), _other_lines(audit, every=every)
    for line in head:
        _say(line)
    found = group_found(audit["findings"], audit["summary"])
    if found:
        console.print()
    if every:
        _print_all(audit["findings"])
    else:
        room = max(LEAST_LINES, SCREEN_LINES - len(head) - len(rest) - BESIDES)
        for group, own in zip(found, share_lines(len(found), room), strict=False):
            for line in _group_lines(group, own):
                _say(line)
        if len(found) > room:
            _say(Text(f"and {len(found) - room} more checks", style="dim"))
    console.print()
    for line in rest:
        _say(line)


def share_lines(checks: int, room: int) -> list[int]:
    """Lines for each check, 1 to 4: a line for all before the first gets a second. Of more checks, `room`."""
    lines = [1] * min(checks, room)
    while (left := room - sum(lines)) > 0 and any(n < MOST_LINES for n in lines):
        for place in [place for place, n in enumerate(lines) if n == min(lines)][:left]:
            lines[place] += 1
    return lines


def print_paths(paths: Sequence[Path]) -> None:
    """Where the files are; a path is never broken into lines."""
    for label, path in zip(("Findings:", "Page:"), paths, strict=False):
        console.print(f"{label:<9} {path}", markup=False, soft_wrap=True)


def group_found(findings: Sequence[Mapping[str, Any]], counts: Mapping[str, int]) -> list[Found]:
    """The findings by check, errors first; the order of the checks is kept otherwise.

    Args:
        counts: how many there are of each check, where there may be more than `findings`.
    """
    by_check: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        by_check.setdefault(finding["check"], []).append(finding)
    groups = []
    for check, own in by_check.items():
        worst = min(own, key=lambda f: (ORDER.get(f["severity"], 3), -(f["score"] or 0.0)))
        first = [worst, *(finding for finding in own if finding is not worst)]
        places = dict.fromkeys((str(e["file"]), int(e["line"])) for f in first for e in f["examples"])
        groups.append(Found(check, worst, max(len(own), counts.get(check, 0)), tuple(places)))
    return sorted(groups, key=lambda group: ORDER.get(group.worst["severity"], 3))


def say_places(places: Sequence[tuple[str, int]]) -> str:
    """`data.jsonl:3, 9, 17 and 4 more`; empty where there are none."""
    said, last = [], ""
    for file, line in places[:PLACES_SHOWN]:
        name = PurePath(file).name
        said.append(str(line) if name == last else f"{name}:{line}")
        last = name
    more = len(places) - PLACES_SHOWN
    return ", ".join(said) + (f" and {more:,} more" if more > 0 else "")


def _read_lines(audit: Mapping[str, Any]) -> list[Text]:
    files = audit.get("read", ())
    lines = []
    for file in files[:FILES_SHOWN]:
        line = Text.assemble(
            (PurePath(file["file"]).name, "bold"),
            f": {_count(file['examples'], 'example')}, read as {file['described']}",
        )
        lines.append(line)
        if file.get("left_out"):
            lines.append(
                Text(f"left out: {_count(file['left_out'], 'row')} that could not be read", "yellow")
            )
    if len(files) > FILES_SHOWN:
        lines.append(Text(f"and {len(files) - FILES_SHOWN} more files"))
    sides = audit.get("sides", {})
    if len(sides) > 1:
        lines.append(Text("sides: " + ", ".join(f"{n:,} {side}" for side, n in sides.items()), style="dim"))
    return lines


def _group_lines(group: Found, room: int) -> list[Text]:
    """A check in `room` lines: the worst message; then its places and what to do, as far as they fit."""
    severity = group.worst["severity"]
    mark, colour = MARKS.get(severity, ("?", "dim"))
    indent = 2 + _NAME + _COUNT + 2
    head = Text.assemble((f"{mark} ", colour), (f"{group.check:<{_NAME}}", f"bold {colour}"))
    head.append(f"{group.count:>{_COUNT},}  ")
    told = _wrapped(group.worst["message"], console.width - indent, 2 if room >= 4 else 1)
    lines = [head.append(told[0]), *(Text(" " * indent + line) for line in told[1:])]
    where, fix = say_places(group.places), group.worst["fix"]
    if room == 2:
        lines.append(Text.assemble(" " * indent, (where, "dim"), "  " * bool(where and fix), fix))
    elif room > 2:
        lines += [Text(" " * indent + where, style="dim")] if where else []
        left = max(1, room - len(lines))
        lines += [
            Text(" " * indent + line) for line in _wrapped(fix, console.width - indent, min(left, 2)) if line
        ]
    return lines[:room]


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """The text in at most `most` lines, with an ellipsis where it was cut."""
    words = " ".join(text.split())
    lines = [line.plain.rstrip() for line in Text(words).wrap(console, max(20, width))] or [""]
    if len(lines) <= most:
        return lines
    rest = Text(" ".join(lines[most - 1 :]))
    rest.truncate(max(20, width), overflow="ellipsis")
    return [*lines[: most - 1], rest.plain]


def _print_all(findings: Sequence[Mapping[str, Any]]) -> None:
    for finding in sorted(findings, key=lambda f: ORDER.get(f["severity"], 3)):
        mark, colour = MARKS.get(finding["severity"], ("?", "dim"))
        head = Text.assemble((f"{mark} {finding['check']}", f"bold {colour}"), f" {finding['message']}")
        console.print(head, soft_wrap=True)
        places = ", ".join(f"{PurePath(e['file']).name}:{e['line']}" for e in finding["examples"])
        if places:
            console.print(Text(f"    {places}", style="dim"), soft_wrap=True)
        if finding["fix"]:
            console.print(Text(f"    {finding['fix']}"), soft_wrap=True)


def _other_lines(audit: Mapping[str, Any], *, every: bool) -> list[Text]:
    from luthier.audit.overview import say_power

    lines = []
    clean = [check for check, n in audit["summary"].items() if not n]
    if clean:
        told = _wrapped(f"nothing found by {', '.join(clean)}", console.width, 99 if every else CLEAN_LINES)
        lines += [Text(line, style="green") for line in told]
    failed = audit["failed"]
    for entry in failed if every else failed[:FAILED_SHOWN]:
        lines.append(Text.assemble((f"could not run {entry['check']}", "red"), f": {entry['reason']}"))
    if not every and len(failed) > FAILED_SHOWN:
        lines.append(Text(f"could not run {len(failed) - FAILED_SHOWN} more checks", style="red"))
    skipped = audit.get("skipped", ())
    if skipped and every:
        lines += [
            Text(f"did not apply: {entry['check']}: {entry['reason']}", style="dim") for entry in skipped
        ]
    elif skipped:
        lines.append(Text(f"did not apply: {', '.join(entry['check'] for entry in skipped)}", style="dim"))
    if sampled := audit.get("sampled"):
        named = ", ".join(f"{check} ({n:,})" for check, n in sampled.items())
        lines.append(Text(f"looked at a sample: {named}", style="dim"))
    if power := say_power(audit.get("power")):
        lines.append(Text(power))
    found = audit.get("severities") or Counter(finding["severity"] for finding in audit["findings"])
    counts = [_count(found.get(kind, 0), word) for kind, word in WORDS.items()]
    lines.append(Text(f"{_count(audit['examples'], 'example')}: {', '.join(counts)}", style="bold"))
    return lines


def _say(line: Text) -> None:
    """One line of the screen, cut where it ends."""
    console.print(line, no_wrap=True, overflow="ellipsis")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
