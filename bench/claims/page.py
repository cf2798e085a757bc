"""docs/claims.md: each claim with what was run, the numbers, and the verdict that they lead to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.claims.claim import Claim, Judged
from bench.claims.evidence import MEANINGS, OneOf, Part, Statement, decide, show
from bench.claims.points import LAYERS, Outcome, Outcomes
from bench.machine import describe_machine
from bench.report import table

Collected = Sequence[tuple[Claim, Outcomes, Sequence[str]]]  # with the names of the runs that are missing
FINDINGS = {"shown": "shown", "ruled out": "**ruled out**", "open": "may be chance"}


def write_page(collected: Collected, command: str) -> str:
    """The whole document."""
    judged = [(claim, claim.judge(found) if found else None) for claim, found, _ in collected]
    runs = {
        outcome.key: outcome for _, found, _ in collected for several in found.values() for outcome in several
    }
    parts = [
        "# What people say of fine-tuning, measured",
        f"```\n{command}\n```",
        _conditions(list(runs.values())),
        summary(judged),
        disagreements(judged),
        *(
            section(claim, result, missing)
            for (claim, result), (_, _, missing) in zip(judged, collected, strict=True)
        ),
        HOW_TO_READ,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(judged: Sequence[tuple[Claim, Judged | None]]) -> str:
    """One row per claim."""
    rows = [
        [claim.says, "not measured yet" if result is None else MEANINGS[decide(result.statements)[0]]]
        for claim, result in judged
    ]
    return table(["people say", "we find"], rows)


def disagreements(judged: Sequence[tuple[Claim, Judged | None]]) -> str:
    """The statements that the numbers rule out, all in one place."""
    lines = [
        f"- {claim.says} Ruled out here: {statement.told()}."
        for claim, result in judged
        if result is not None
        for statement in result.statements
        if statement.finding == "ruled out"
    ]
    return "Where our numbers disagree:\n\n" + "\n".join(lines) if lines else ""


def section(claim: Claim, result: Judged | None, missing: Sequence[str]) -> str:
    """Everything about one claim."""
    parts = [f"## {claim.title}", f"**{claim.says}** Who says it: {claim.who}", f"What was run: {claim.ran}"]
    if result is None:
        return "\n\n".join([*parts, f"Not measured yet: {', '.join(missing)}."])
    parts += [f"{one.caption}\n\n{table(one.head, one.rows)}" for one in result.tables]
    parts += result.remarks
    parts.append("What the verdict rests on:\n\n" + statements_table(result.statements))
    parts.append(f"**{decide(result.statements)[1]}**")
    return "\n\n".join(parts)


def statements_table(statements: Sequence[Statement]) -> str:
    """One row per statement and part, with n, estimate, interval and what it says."""
    head = ["statement", "n", "estimate and interval", "level", "shown above", "ruled out below", "finding"]
    return table(head, [row for statement in statements for row in _rows(statement)])


def _rows(statement: Statement) -> Iterator[list[str]]:
    if isinstance(statement, OneOf):
        yield [f"{statement.what}: one of", "", "", "", "", "", FINDINGS[statement.finding]]
        yield from (_row(part, "- ") for part in statement.parts)
    else:
        yield _row(statement)


def _row(part: Part, mark: str = "") -> list[str]:
    times = 1 if part.unit == "nats" else 100
    return [
        mark + part.what,
        str(part.estimate.n),
        show(part.estimate, part.unit),
        f"{100 * part.estimate.level:.3g}%",
        f"{times * part.shown_above:g}",
        f"{times * part.out_below:g}",
        FINDINGS[part.finding],
    ]


def _conditions(runs: Sequence[Outcome]) -> str:
    facts = describe_machine()
    versions = ", ".join(f"{name} {facts[name]}" for name in ("luthier", "torch", "transformers", "peft"))
    seeds = len({outcome.seed for outcome in runs})
    minutes = sum(outcome.seconds for outcome in runs) / 60
    slowest = max((outcome.training_seconds or 0.0 for outcome in runs), default=0.0)
    return (
        f"SmolLM2-135M-Instruct, the {LAYERS} of its 30 layers trained, on small data: a model and a size "
        "at which everybody can repeat this, and at which much cannot be decided. The numbers come from "
        f"{len(runs)} runs of Luthier's own recipes, {minutes:.0f} minutes in all, the longest training "
        f"{slowest:.0f} s; seeds: {seeds}. Where nothing else is said, training is plain, without replay. "
        f"{versions}."
    )


HOW_TO_READ = """## How to read this

- A claim is cut into statements, and holds when all of them do. A statement is shown when its whole interval
  lies above one value (mostly 0), and ruled out when the whole interval lies below the smallest value that
  would matter. Everything else may be chance. Both values are in the tables; they were set before the numbers
  were seen.
- Verdicts are computed from the tables by `bench/claims/evidence.py`; none is written by hand.
- Two candidates are compared on the same examples, paired: Tango's interval for right or wrong, a BCa
  bootstrap otherwise. Single shares have Wilson's. A difference of independent numbers combines their
  intervals (MOVER).
- Intervals are over test examples. What another training would have given is in them only as far as several
  seeds were run, of which each example then counts once; with one seed it is not in them at all.
- The best alternative is chosen on the same test examples, which makes it look slightly better than it is.
- Nothing here is adjusted for the number of claims."""
