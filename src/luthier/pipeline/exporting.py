"""The tuned model for use elsewhere, with what says when it should hand a request over."""

from __future__ import annotations

from pathlib import Path

from luthier.errors import RecipeError
from luthier.pipeline.models import Models
from luthier.pipeline.stages import export_abstention
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.record import Record, explain_os_errors

MERGED = "merged"


def write_export(
    record: Record, recipe: Recipe, models: Models, show: Show, format: str, out: Path | None
) -> Path:
    """The work of `Run.export`; returns the folder that was written."""
    from luthier.models import export_merged

    if format != MERGED:
        fix = "use --format merged; the adapter itself is in adapter/"
        raise RecipeError(f"unknown format {format!r}", fix=fix)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError("already there, and not empty", where=str(out), fix="name a new folder")
    into = out or record / "export" / format
    base = models.base()
    with explain_os_errors(into), show.task("merging", None):
        export_merged(base, record / "adapter", into)
        export_abstention(record, into)
    models.forget()  # the adapter is merged into these weights
    system = recipe.system_of("tuned")
    if system is not None or recipe.tuned_system is not None:
        told = "without a system prompt" if system is None else f"with the system prompt: {system}"
        show.note(f"ask it as it was trained, {told}")
    return into
