"""`luthier check --fix`: a cleaned copy of the examples, and a log of every change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from luthier.cli.opening import RECIPE_SUFFIXES
from luthier.cli.screen import Screen, console
from luthier.errors import DataError, RecipeError
from luthier.examples.answers import kind_of_answers
from luthier.examples.columns import Columns
from luthier.examples.files import DataFile, find_files
from luthier.recipe import SUITES, load_recipe

if TYPE_CHECKING:
    from luthier.audit.cleaning import Workpiece
    from luthier.audit.doubts import Decision, Doubt
    from luthier.audit.draft import Draft
    from luthier.audit.finding import Finding

DEFAULT_MODEL = "smollm2-135m"
LABELS_LISTED = 20


@dataclass(frozen=True)
class Target:
    """A file to clean, and where the copy, its log and what a person decided of it go."""

    file: DataFile
    out: Path

    @property
    def log(self) -> Path:
        """`NAME.clean.log.jsonl` beside the copy."""
        return self.out.with_name(f"{self.out.stem}.log.jsonl")

    @property
    def journal(self) -> Path:
        """`NAME.clean.journal.jsonl` beside the copy."""
        return self.out.with_name(f"{self.out.stem}.journal.jsonl")


def fix_source(
    source: Path,
    out: Path | None,
    *,
    mask: bool = False,
    interactive: bool = False,
    force: bool = False,
    model: str = DEFAULT_MODEL,
    columns: Columns | None = None,
) -> None:
    """Clean a file of examples, a folder of them, or the training files of a recipe, none of them in place.

    Args:
        out: the copy; of a folder, the folder of copies.
        mask: put placeholders for personal data and secrets.
        interactive: ask about what is doubtful.
        force: replace an earlier copy.

    Raises:
        RecipeError: an option does not fit the source, or a copy is there already.
        DataError: a file cannot be read, or nothing of it would be left.
    """
    groups, columns = _targets(source, out, columns or {})
    for target in (target for group in groups for target in group):
        _refuse_to_overwrite(target, force=force)
    for group in groups:
        _fix(group, columns, mask=mask, interactive=interactive, model=model)
    if source.suffix in RECIPE_SUFFIXES:
        copies = ", ".join(str(target.out) for group in groups for target in group)
        console.print(
            f"To train on it, let data.train of {source} name {copies}.", markup=False, soft_wrap=True
        )


def _fix(targets: Sequence[Target], columns: Columns, *, mask: bool, interactive: bool, model: str) -> None:
    """Clean files that belong together: a copy of a row may be in another of them."""
    from luthier.audit.cleaning import clean, open_workpiece, write_clean
    from luthier.audit.doubts import apply_decisions, find_doubts
    from luthier.audit.finding import counted
    from luthier.cli.doubting import ask_doubts
    from luthier.record import explain_os_errors

    with Screen().task(f"cleaning {targets[0].file.path.name}", None) as advance:
        pieces = [open_workpiece(target.file, columns) for target in targets]
        clean(pieces, mask=mask)
        _refuse_nothing(pieces)
        advance(0, "looking for what is doubtful")
        drafts = [draft for piece in pieces for draft in piece.kept]
        doubts = find_doubts(_audit(drafts, model), drafts)
    earlier = {key: own for target in targets for key, own in read_decisions(target.journal).items()}
    failed, left = apply_decisions(doubts, earlier)
    if earlier:
        gone = len(earlier.keys() - {doubt.key for doubt in doubts})
        lost = f", {gone} of them about rows that are not there any more" if gone else ""
        console.print(f"{counted(len(earlier), 'decision')} of earlier sessions{lost}.")
    if interactive:
        journals = {id(d): t.journal for t, p in zip(targets, pieces, strict=True) for d in p.kept}
        labels = _labels(drafts)
        decided = ask_doubts(left, lambda doubt, row: _note(journals[id(doubt.draft)], row), labels)
        if decided is None:
            console.print(
                "Nothing was written. The same command goes on from here; without --interactive it writes "
                "the copy with what is decided so far."
            )
            return
        more, left = apply_decisions(left, decided)
        failed += more
    for doubt in failed:
        console.print(f"[yellow]{escape(doubt.draft.example.where)} could not be written so.[/yellow]")
    clean(pieces, mask=mask)
    _refuse_nothing(pieces)
    for target, piece in zip(targets, pieces, strict=True):
        with explain_os_errors(target.out):
            write_clean(piece, target.out, target.log, masked=mask)
    _print_summary(targets, pieces, [doubt for doubt in left if doubt.is_open])


def _labels(drafts: Sequence[Draft]) -> list[str]:
    """The labels that rows have, the most frequent first; none where the answers are no labels."""
    examples = [draft.example for draft in drafts]
    if kind_of_answers(examples) != "label":
        return []
    counts = Counter(example.answer.strip() for example in examples)
    return [label for label, _ in counts.most_common(LABELS_LISTED)]


def _refuse_nothing(pieces: Sequence[Workpiece]) -> None:
    if not any(piece.kept for piece in pieces):
        fix = "see what the rows lack: luthier check without --fix"
        raise DataError("no row would be left", where=pieces[0].file.name, fix=fix)


def _audit(drafts: Sequence[Draft], model: str) -> Sequence[Finding]:
    """The findings in what is left; the special tokens of a model that was named count as well."""
    from luthier.audit import audit_examples

    special: Sequence[str] = ()
    if model != DEFAULT_MODEL:  # whose tokens are known as markup anyway, and take seconds to load
        from luthier.models.load import load_tokenizer

        special = load_tokenizer(model).all_special_tokens
    return audit_examples({"all": [draft.example for draft in drafts]}, special_tokens=special).findings


def read_decisions(journal: Path) -> dict[str, Decision]:
    """What was decided in earlier sessions and not taken back, by key."""
    from luthier.audit.doubts import VERBS, Decision
    from luthier.ranking.journal import read_lines

    decisions: dict[str, Decision] = {}
    for number, row in read_lines(journal):
        if isinstance(row.get("undo"), str):
            decisions.pop(row["undo"], None)
        elif isinstance(row.get("key"), str) and row.get("verb") in VERBS:
            decisions[row["key"]] = Decision.from_row(row)
        else:
            fix = "move the file away: it is none of `luthier check --fix`"
            raise RecipeError("is not a decision", where=f"{journal}:{number}", fix=fix)
    return decisions


def _note(journal: Path, row: Mapping[str, Any]) -> None:
    """Keep a decision before the next question is asked."""
    from luthier.ranking.journal import append_line

    append_line(journal, {**row, "at": datetime.now(UTC).isoformat(timespec="seconds")})


# --- where copies go --------------------------------------------------------------------------------


def _targets(source: Path, out: Path | None, columns: Columns) -> tuple[list[list[Target]], Columns]:
    """Files that are cleaned together, and how their columns are to be read."""
    if source.suffix in RECIPE_SUFFIXES:
        recipe = load_recipe(source)
        files = [task.file for task in recipe.data.tasks] or [str(recipe.data.train)]
        if len(files) > 1 and out is not None:
            fix = "leave --out away: each copy is written beside its file"
            raise RecipeError(f"the recipe has {len(files)} training files", where=str(source), fix=fix)
        return [_of_data(file, out) for file in files], recipe.data.columns or columns
    if (source / "recipe.yaml").is_file():
        fix = "fix the file that its recipe names, then run that recipe again"
        raise RecipeError("a run folder keeps what it was made from", where=str(source), fix=fix)
    return [_of_data(str(source), out)], columns


def _of_data(name: str, out: Path | None) -> list[Target]:
    from luthier.audit.source_text import clean_suffix
    from luthier.pipeline.sources import path_of

    if name.startswith(SUITES):
        if out is None:
            fix = "say where the copy goes: --out NAME.jsonl"
            raise RecipeError("a file of the public suites", where=name, fix=fix)
        name = str(path_of(name))
    path = Path(name)
    found = find_files(name).files
    if len(found) == 1 and found[0].path == path:
        suffix = clean_suffix(path)
        stem = path.name.split(suffix)[0] if suffix in path.name else path.name.split(".")[0]
        return [Target(found[0], out or path.with_name(f"{stem}.clean{suffix}"))]
    folder = out or Path(f"{path.name}.clean")
    if folder.exists() and not folder.is_dir():
        raise RecipeError("is a file, expected a folder for copies", where=str(folder), fix="name another")
    return [Target(file, folder / _inner(file, path)) for file in found]


def _inner(file: DataFile, source: Path) -> Path:
    """The name of a copy inside the folder of copies."""
    from luthier.audit.source_text import clean_suffix

    inside = file.path.relative_to(source) if file.path.is_relative_to(source) else Path(file.path.name)
    suffix = clean_suffix(inside)
    stem = inside.name.split(suffix)[0] if suffix in inside.name else inside.name.split(".")[0]
    return inside.with_name(f"{stem}{suffix}")


def _refuse_to_overwrite(target: Target, *, force: bool) -> None:
    if target.out.exists() and target.out.resolve() == target.file.path.resolve():
        raise RecipeError(
            "is the original, which stays as it is", where=str(target.out), fix="choose another --out"
        )
    for path in (target.out, target.log):
        if path.is_dir():
            raise RecipeError("is a folder", where=str(path), fix="name a file: --out NAME.jsonl")
        if path.exists() and not force:
            fix = "choose another --out, or replace it with --force"
            raise RecipeError("is there already", where=str(path), fix=fix)


# --- what is shown ----------------------------------------------------------------------------------


def _print_summary(targets: Sequence[Target], pieces: Sequence[Workpiece], left: Sequence[Doubt]) -> None:
    from luthier.audit.cleaning import tally
    from luthier.audit.finding import counted

    counts = tally(pieces)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(("check", "changed", "left out", "for you to decide")):
        table.add_column(heading, justify="right" if place else "left")
    doubtful = Counter(doubt.finding.check for doubt in left)
    for check in dict.fromkeys([*(check for check, _ in counts), *doubtful]):
        numbers = counts.get((check, "changed"), 0), counts.get((check, "dropped"), 0), doubtful[check]
        table.add_row(check, *(f"{n:,}" if n else "" for n in numbers))
    if table.row_count:
        console.print(table)
    else:
        console.print("There was nothing to fix.")
    for target, piece in zip(targets, pieces, strict=True):
        rows = f"{len(piece.kept):,} of {len(piece.source.items):,} rows"
        console.print(f"{rows}: {target.out}", markup=False, soft_wrap=True)
        console.print(f"Log: {target.log}", style="dim", markup=False, soft_wrap=True)
    if left:
        console.print(f"{counted(len(left), 'question')} left for you: go through them with --interactive.")
