"""The options of `luthier convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[str, typer.Argument(help="A file, a folder, or hub:OWNER/NAME.", metavar="IN")],
    out: Annotated[Path, typer.Argument(help="The file to write; its ending says the kind.", metavar="OUT")],
    to: Annotated[str | None, typer.Option(help="The form, such as openai. Default: as read.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write examples of any form as any other, in JSONL, JSON, CSV, TSV or Parquet, compressed or not.

    Forms: openai, sharegpt, alpaca, prompt-completion, trl-preference, openai-preference, unpaired, text,
    and luthier, which holds everything.

    Example: luthier convert chats.json chats.jsonl.gz --to openai
    """
    from luthier.cli.converting import convert_file
    from luthier.cli.screen import console

    count, read, written = convert_file(source, out, to=to, force=force)
    console.print(f"{count} examples, read as {read}, written as {written}: {out}", soft_wrap=True)
