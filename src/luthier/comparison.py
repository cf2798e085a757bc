"""Two runs on the same held-out examples: is the newer one no worse, what was mended, what else moved.

For retraining: the run that is in use is compared with the one that would take its place. Examples are
matched by their content, so that only those are compared that both runs were asked and graded on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from luthier.errors import RecordError
from luthier.failures import failures_of
from luthier.recipe import load_recipe
from luthier.record import Record
from luthier.stats import compare, holm, stand

Rows = Sequence[Mapping[str, Any]]
Decision = Literal["better", "no_worse", "worse", "undecided"]
ALPHA = 0.05
SHOWN = 5


def compare_runs(
    old: Record, new: Record, *, candidate: str | None = None, margin: float | None = None
) -> dict[str, Any]:
    """Compare one candidate of two runs, paired.

    Args:
        old, new: run folders that have been evaluated.
        candidate: whose answers; each run's recommended one when absent.
        margin: the largest loss that is accepted, in score; `gates.min_gain` of the new recipe when absent.

    Returns:
        `decision`: `better` (a significant gain), `no_worse` (a loss of `margin` or more is ruled out),
        `worse` (the loss is significant), `undecided`; `old` and `new` (candidate, score); `difference`,
        `low`, `high`, `p`, `n`, `margin`; `only_old`, `only_new` (examples that one run alone has);
        `kinds` (failures of the old run with how often they happen now, p adjusted by Holm);
        `lost` and `gained` (answers that changed most).

    Raises:
        RecordError: a run has not been evaluated, their graders differ, or no example is in both.
    """
    scores = [record.read_json("scores.json", needed_by="evaluate") for record in (old, new)]
    if scores[0]["grader"] != scores[1]["grader"]:
        raise RecordError(
            f"graded by {scores[1]['grader']}, and the other run by {scores[0]['grader']}",
            where=str(new.path),
            fix="grade both alike: set `grader` in one of the recipes and run luthier evaluate",
        )
    names = [candidate or _recommended(record) for record in (old, new)]
    tables = [_graded(record, name) for record, name in zip((old, new), names, strict=True)]
    shared = [key for key in tables[0] if key in tables[1]]
    if not shared:
        fix = "compare runs whose recipes name the same test file, or split the same examples"
        raise RecordError(f"no held-out example in common with {old.path}", where=str(new.path), fix=fix)
    before, after = ([table[key] for key in shared] for table in tables)
    a, b = [row["score"] for row in after], [row["score"] for row in before]
    clusters = _clusters(old, before)
    recipe = load_recipe(new / "recipe.yaml")
    allowed = margin if margin is not None else (recipe.gates.min_gain or 0.02)
    result = compare(a, b, clusters=clusters, seed=recipe.seed)
    standing = stand(a, b, margin=allowed, clusters=clusters, seed=recipe.seed)
    return {
        "decision": _decide(result, standing.finding),
        "old": {"run": old.path.name, "candidate": names[0], "score": sum(b) / len(b)},
        "new": {"run": new.path.name, "candidate": names[1], "score": sum(a) / len(a)},
        "metric": scores[1]["metric"],
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p": result.p,
        "test": result.test,
        "n": result.n,
        "margin": allowed,
        "one_sided_low": standing.low,
        "only_old": len(tables[0]) - len(shared),
        "only_new": len(tables[1]) - len(shared),
        "kinds": _kinds(before, after),
        **_moved(before, after),
    }


def _decide(result: Any, finding: str | None) -> Decision:
    significant = result.p is not None and result.p <= ALPHA
    if significant and result.difference > 0:
        return "better"
    if finding == "within_margin":
        return "no_worse"
    return "worse" if significant or finding == "worse" else "undecided"


def _recommended(record: Record) -> str:
    """What the run's verdict recommends, or tuned where it has none yet."""
    try:
        name = record.read_json("verdict.json")["recommended"]
    except RecordError:
        name = None
    return name or "tuned"


def _graded(record: Record, candidate: str) -> dict[str, Mapping[str, Any]]:
    """Scored answers by the example's id, which is made from its content."""
    if not (record / f"predictions/{candidate}.jsonl").is_file():
        known = ", ".join(sorted(path.stem for path in (record / "predictions").glob("*.jsonl")))
        raise RecordError(
            f"no answers of {candidate!r}; there are: {known or 'none'}", where=str(record.path)
        )
    rows = record.read_jsonl(f"predictions/{candidate}.jsonl")
    return {row["id"]: row for row in rows if row["score"] is not None}


def _clusters(record: Record, rows: Rows) -> list[str] | None:
    """The groups of the examples where the user named any."""
    try:
        groups = {row["id"]: row.get("group") for row in record.read_jsonl("data/test.jsonl")}
    except RecordError:
        return None
    if not any(groups.values()):
        return None
    return [groups.get(row["id"]) or f"alone:{row['id']}" for row in rows]


def _kinds(before: Rows, after: Rows) -> list[dict[str, Any]]:
    """Each kind of failure of either run: how often then and now, on the same examples."""
    old, new = ([set(failures_of(row)) for row in rows] for rows in (before, after))
    kinds = sorted({kind for found in (*old, *new) for kind in found})
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        was, now = ([kind in found for found in side] for side in (old, new))
        if sum(was) + sum(now) < 3:
            continue
        p = compare([float(x) for x in now], [float(x) for x in was]).p
        rows.append({"kind": kind, "old": sum(was), "new": sum(now), "p": p})
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p"] = p
    return sorted(rows, key=lambda row: (row["p"] or 1.0, -abs(row["new"] - row["old"])))


def _moved(before: Rows, after: Rows) -> dict[str, Any]:
    changes = [
        {
            "input": new["input"],
            "reference": new["reference"],
            "old": {"answer": old["answer"], "score": old["score"]},
            "new": {"answer": new["answer"], "score": new["score"]},
            "file": new.get("file"),
            "line": new.get("line"),
        }
        for old, new in zip(before, after, strict=True)
        if old["score"] != new["score"]
    ]
    changes.sort(key=lambda change: change["new"]["score"] - change["old"]["score"])
    lost = [c for c in changes if c["new"]["score"] < c["old"]["score"]]
    gained = [c for c in reversed(changes) if c["new"]["score"] > c["old"]["score"]]
    return {
        "flips": {"lost": len(lost), "gained": len(gained)},
        "lost": lost[:SHOWN],
        "gained": gained[:SHOWN],
    }
