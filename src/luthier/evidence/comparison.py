"""Two runs on the same held-out examples: is the newer one no worse, what was mended, what else moved.

For retraining: the run that is in use is compared with the one that would take its place. Examples are
matched by their content, so that only those are compared that both runs were asked and graded on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from luthier.errors import RecordError
from luthier.evidence.failures import failures_by_field, rest_of
from luthier.evidence.slices import MIN_PAIRS, slice_value
from luthier.recipe import Recipe, load_recipe
from luthier.record import Record
from luthier.stats import compare, holm, stand, win_rate

Rows = Sequence[Mapping[str, Any]]
Decision = Literal["better", "no_worse", "worse", "undecided"]
ALPHA = 0.05
SHOWN = 5
LEAST = 3  # a kind that happened once or twice in both runs together shows nothing


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
        `low`, `high`, `p`, `n`, `margin`; `wins` (of the new one, as `stats.Wins`); `only_old`, `only_new`
        (examples that one run alone has);
        `kinds` (failures of either run by kind: `kind`, `known` (one of the old run's `failures.json`), `n`,
        `old` and `new` (how many examples), `mended` (of the old ones), `difference` in share of examples,
        `low`, `high`, `p`, `changed`); `slices` (`field`, `value`, `n`, `old`, `new` (scores), `difference`,
        `low`, `high`, `p`, `changed`), by the fields that either recipe names. `p` of each family is
        adjusted by Holm, and `changed` is `better`, `worse`, or None where that is not sure;
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
    recipes = [load_recipe(record / "recipe.yaml") for record in (old, new)]
    recipe = recipes[1]
    allowed = margin if margin is not None else (recipe.gates.min_gain or 0.02)
    result = compare(a, b, clusters=clusters, seed=recipe.seed)
    standing = stand(a, b, margin=allowed, clusters=clusters, seed=recipe.seed)
    named = _named_kinds(old, names[0])
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
        "wins": asdict(win_rate(a, b, clusters=clusters, seed=recipe.seed)),
        "margin": allowed,
        "one_sided_low": standing.low,
        "only_old": len(tables[0]) - len(shared),
        "only_new": len(tables[1]) - len(shared),
        "kinds": _kinds(before, after, named, clusters, recipe.seed),
        "slices": _slices(before, after, _fields(old), recipes, clusters, recipe.seed),
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


def _named_kinds(record: Record, candidate: str) -> set[str]:
    """The kinds of failure that a run's report names."""
    try:
        found = record.read_json("failures.json").get(candidate, {})
    except RecordError:
        return set()
    return {kind["kind"] for kind in found.get("kinds", ())}


def _kinds(
    before: Rows, after: Rows, named: set[str], clusters: list[str] | None, seed: int
) -> list[dict[str, Any]]:
    """Each kind of failure of either run: how often then and now, on the same examples.

    Kinds are chosen by how often they happened in both runs together: chosen by the old run alone, those
    that were bad luck there would look mended in any new one.
    """
    found = [[failures_by_field(row) for row in rows] for rows in (before, after)]
    counts = Counter(failure for side in found for failures in side for failure in failures)

    def name_of(field: str, said: str) -> str:
        return said if counts[field, said] >= LEAST or said in named else rest_of(field)

    old, new = ([{name_of(*failure) for failure in failures} for failures in side] for side in found)
    totals = Counter(kind for side in (old, new) for kinds in side for kind in kinds)
    rows = []
    for kind in sorted(kind for kind, total in totals.items() if total >= LEAST or kind in named):
        was, now = ([float(kind in kinds) for kinds in side] for side in (old, new))
        rows.append(
            {
                "kind": kind,
                "known": kind in named,
                **_change(now, was, clusters, seed),
                "old": int(sum(was)),
                "new": int(sum(now)),
                "mended": sum(x > y for x, y in zip(was, now, strict=True)),
            }
        )
    return sorted(_adjusted(rows, good=-1), key=lambda row: (row["p"] or 1.0, -abs(row["new"] - row["old"])))


def _fields(record: Record) -> dict[str, Mapping[str, Any]]:
    """The other columns of the held-out examples, by id."""
    try:
        return {row["id"]: row.get("fields") or {} for row in record.read_jsonl("data/test.jsonl")}
    except RecordError:
        return {}


def _slices(
    before: Rows,
    after: Rows,
    fields: Mapping[str, Mapping[str, Any]],
    recipes: Sequence[Recipe],
    clusters: list[str] | None,
    seed: int,
) -> list[dict[str, Any]]:
    """The score of each slice then and now; one of fewer than 8 examples is shown but not tested."""
    rows = []
    for field in dict.fromkeys(name for recipe in recipes for name in recipe.slices):
        values = [slice_value(fields.get(row["id"], {}), field) for row in before]
        for value in sorted({value for value in values if value is not None}):
            places = [i for i, found in enumerate(values) if found == value]
            was, now = ([side[i]["score"] for i in places] for side in (before, after))
            own = None if clusters is None else [clusters[i] for i in places]
            change = _change(now, was, own, seed)
            means = {"old": sum(was) / len(was), "new": sum(now) / len(now)}
            untested = {"p": None} if len(places) < MIN_PAIRS else {}
            rows.append({"field": field, "value": value, **change, **means, **untested})
    return _adjusted(rows, good=1)


def _change(now: list[float], was: list[float], clusters: list[str] | None, seed: int) -> dict[str, Any]:
    result = compare(now, was, clusters=clusters, seed=seed)
    return {key: getattr(result, key) for key in ("n", "difference", "low", "high", "p")}


def _adjusted(rows: list[dict[str, Any]], *, good: int) -> list[dict[str, Any]]:
    """Rows with `p` adjusted by Holm and `changed`; `good` is the sign of a change for the better."""
    adjusted = holm([row["p"] for row in rows])
    return [{**row, "p": p, "changed": _changed(row, p, good)} for row, p in zip(rows, adjusted, strict=True)]


def _changed(row: Mapping[str, Any], p: float | None, good: int) -> Literal["better", "worse"] | None:
    if p is None or p > ALPHA:
        return None
    return "better" if row["difference"] * good > 0 else "worse"


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
