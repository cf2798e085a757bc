"""The study as Markdown: held-out loss and score over the grid, and what the rule loses against its best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.learning_rate.points import BATCH_TOKENS, EPOCHS, FACTORS, UNTRAINED, Outcome
from bench.learning_rate.tasks import HELD_OUT, TASKS, TRAIN
from bench.machine import describe_machine
from bench.report import table

Grid = Mapping[float, Outcome]


def write_study(outcomes: Sequence[Outcome], command: str) -> str:
    """The whole document."""
    grids = _by_run(outcomes)
    whole = {run: grid for run, grid in grids.items() if set(FACTORS) <= set(grid)}
    facts = describe_machine()
    versions = ", ".join(f"{name} {facts[name]}" for name in ("luthier", "torch", "transformers", "peft"))
    rates = sorted({outcome.rate for outcome in outcomes if outcome.point.factor == 1.0})
    parts = [
        "# The learning rate that `auto` chooses",
        f"```\n{command}\n```",
        f"LoRA (the recipe's defaults) on SmolLM2-135M-Instruct; the rule gives "
        f"{', '.join(f'{rate:.2e}' for rate in rates) or 'no rate yet'}. "
        f"{TRAIN} examples to train on, {EPOCHS} epochs, {BATCH_TOKENS} tokens per step, {HELD_OUT} held-out "
        "examples; a seed draws the examples, their order and the adapter. Every value is measured after the "
        f"last epoch, on examples that chose nothing. {versions}.",
        "Regret is the held-out loss at the rule's rate minus the lowest on the grid, in nats per trained "
        "token: 0 means that no rate of the grid is better. The share is of what training gains at best: the "
        "loss before training minus the lowest on the grid.",
        "## Regret\n\n" + regret_table(whole, grids),
        "## Held-out loss, nats per trained token\n\n" + _grid_table(grids, "loss"),
        "## Held-out score of greedy answers\n\n" + _grid_table(grids, "score"),
        "## Data\n\n"
        + "\n".join(f"- {name}: {task.what}; grader {task.grader}" for name, task in TASKS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def regret_table(whole: Mapping[tuple[str, int], Grid], grids: Mapping[tuple[str, int], Grid]) -> str:
    """One row per task and seed whose grid is complete."""
    rows = []
    for (task, seed), grid in whole.items():
        losses = {factor: grid[factor].loss for factor in FACTORS}
        finite = {factor: loss for factor, loss in losses.items() if loss is not None}
        rule, best = losses[1.0], min(finite, key=finite.__getitem__, default=None)
        if best is None or rule is None:
            rows.append([task, str(seed), "not finite", "-", "-", "-", "-"])
            continue
        before = grids.get((task, 0), {}).get(UNTRAINED)
        gain = None if before is None or before.loss is None else before.loss - finite[best]
        scores = {factor: grid[factor].score for factor in FACTORS}
        top = max(score for score in scores.values() if score is not None)
        rows.append(
            [
                task,
                str(seed),
                f"{rule:.4f}",
                f"{finite[best]:.4f} at x{best:g}" + (" (end of the grid)" if _at_end(best) else ""),
                f"{rule - finite[best]:.4f}",
                "-" if not gain or gain <= 0 else f"{100 * (rule - finite[best]) / gain:.1f}%",
                f"{scores[1.0]:.3f} of {top:.3f}" if scores[1.0] is not None else "-",
            ]
        )
    if not rows:
        return "No grid is complete yet."
    head = ["task", "seed", "loss at the rule", "lowest on the grid", "regret", "share of the gain"]
    return table([*head, "score at the rule, of the best"], rows)


def _by_run(outcomes: Sequence[Outcome]) -> dict[tuple[str, int], dict[float, Outcome]]:
    grids: dict[tuple[str, int], dict[float, Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.point.task, o.point.seed)):
        grids.setdefault((outcome.point.task, outcome.point.seed), {})[outcome.point.factor] = outcome
    return grids


def _grid_table(grids: Mapping[tuple[str, int], Grid], what: str) -> str:
    head = ["task", "seed", "before", *(f"x{factor:g}" for factor in FACTORS)]
    rows = []
    for (task, seed), grid in grids.items():
        cells = [_cell(grid.get(factor), what) for factor in (UNTRAINED, *FACTORS)]
        rows.append([task, str(seed), *cells])
    return table(head, rows)


def _cell(outcome: Outcome | None, what: str) -> str:
    if outcome is None:
        return ""
    value = outcome.loss if what == "loss" else outcome.score
    return "not finite" if value is None else f"{value:.4f}" if what == "loss" else f"{value:.3f}"


def _at_end(factor: float) -> bool:
    return factor in (FACTORS[0], FACTORS[-1])
