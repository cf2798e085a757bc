"""Production logs as examples. A second pass goes over what the first kept, so that memory stays small."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from luthier.audit.masking import Placeholders
from luthier.collect.conversations import Keys, Seen, conversation_keys, untrain
from luthier.collect.example_row import Row, make_row, refuse_to_overwrite, writing
from luthier.collect.log_filters import Wanted, time_of
from luthier.collect.log_outcome import FAILED, find_fault, has_failed
from luthier.collect.log_record import Exchange, read_exchange, split_record, unfold
from luthier.collect.masks import mask_turn, mask_value, placeholders_for
from luthier.collect.tally import NotTakenError, Tally
from luthier.errors import DataError
from luthier.examples.row import Problem
from luthier.examples.rows import READABLE, kind_named, read_rows
from luthier.record import explain_os_errors

EARLIER_TURN = "an earlier turn of a conversation that is taken whole"
DUPLICATE = "logged more than once"
NOT_DRAWN = "not among those drawn"
NO_ANSWER_FILE = "a request whose answer is in none of the files"
NO_REQUEST_FILE = "an answer whose request is in none of the files"
REPEATED = "its custom_id comes again"
_SKIPPED = (  # of the transport, and what tells that a request failed
    "usage", "object", "choices", "stream", "system_fingerprint", "method", "url", "status", "status_code",
    "response_status", "http_status", "level", "endTime", "end_time",
)  # fmt: skip


@dataclass(frozen=True)
class LogOptions:
    """What is made of logs.

    Attributes:
        wanted: which records.
        source, licence: for the provenance; the source is the file's name where None.
        mask: replace secrets and personal data.
        every_turn: an example for each turn of a conversation, in place of one for all.
        limit, seed: draw so many.
    """

    wanted: Wanted = field(default_factory=Wanted)
    source: str | None = None
    licence: str | None = None
    mask: bool = False
    every_turn: bool = False
    limit: int | None = None
    seed: int = 0


def collect_logs(
    logs: Sequence[Path], out: Path, options: LogOptions | None = None, *, force: bool = False
) -> Tally:
    """Write the examples that logs hold, in the order of the logs.

    Returns:
        What was taken and left out; nothing is written where nothing is taken.

    Raises:
        RecipeError: `out` is there already.
        DataError: a log cannot be opened.
    """
    options = options or LogOptions()
    tally, seen = Tally(), Seen()
    files = list(_files(logs, tally))
    refuse_to_overwrite(out, force=force, inputs=files)
    with explain_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile("w+", dir=out.parent, encoding="utf-8") as kept:
            for row, keys, where in _first_pass(files, options, seen, tally):
                line = {"row": row, "whole": keys.whole, "earlier": keys.earlier, "where": where}
                kept.write(json.dumps(line, ensure_ascii=False) + "\n")
            kept.seek(0)
            _second_pass(kept, out, options, seen, tally)
    return tally


def _files(paths: Sequence[Path], tally: Tally) -> Iterator[Path]:
    """The files named, and those of the folders named that can be read, in order of their names."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        readable = [file for file in inside if kind_named(file) is not None]
        if not readable:
            raise DataError("holds no logs", where=str(path), fix=f"give files of these kinds: {READABLE}")
        for file in inside:
            if file not in readable:
                tally.read += 1
                tally.leave_out("a file of another kind", str(file))
        yield from readable


# --- first pass: every record -----------------------------------------------------------------------


def _first_pass(
    files: Sequence[Path], options: LogOptions, seen: Seen, tally: Tally
) -> Iterator[tuple[Row, Keys, str]]:
    for record, request, answer, used, where in _whole_records(files, tally):
        tally.read += 1
        exchange = Exchange(used=used)
        try:
            read_exchange(exchange, record, request, answer)
        except NotTakenError as reason:
            tally.leave_out(FAILED if has_failed(record, exchange) else str(reason), where)
            continue
        masks = placeholders_for(exchange.messages) if options.mask else None
        if masks is not None:
            exchange.asked = [mask_turn(turn, masks) for turn in exchange.asked]
            exchange.answered = [mask_turn(turn, masks) for turn in exchange.answered]
        at, column = time_of(record, exchange)
        exchange.used |= {column} if column else set()
        fault = find_fault(record, exchange) or options.wanted.refuse(record, exchange, at)
        keys = conversation_keys(exchange.messages)
        try:
            if fault is not None:
                raise NotTakenError(fault)
            row = _row(record, exchange, at, where, options, masks)
        except NotTakenError as reason:
            tally.leave_out(str(reason), where)
            seen.refused.add(keys.whole)
            continue
        seen.take(keys)
        yield row, keys, where


def _row(
    record: Mapping[str, Any],
    exchange: Exchange,
    at: datetime | None,
    where: str,
    options: LogOptions,
    masks: Placeholders | None,
) -> Row:
    columns = {key: value for key, value in record.items() if key not in {*exchange.used, *_SKIPPED}}
    provenance = {
        "source": options.source or Path(where.rpartition(":")[0]).name,
        "licence": options.licence,
        "date": None if at is None else at.date().isoformat(),
        "synthetic": True,  # a model wrote the answers, whoever asked
        "model": exchange.model,
    }
    return make_row(
        exchange.messages,
        provenance=provenance,
        columns=columns if masks is None else mask_value(columns, masks),
        tools=exchange.tools,
    )


Split = tuple[Mapping[str, Any], Any, Any, set[str], str]


def _whole_records(files: Iterable[Path], tally: Tally) -> Iterator[Split]:
    """Records with a request and what may be its answer.

    A batch's requests and answers are put together by `custom_id`; those that wait for the other are held.
    """
    requests: dict[str, Split] = {}
    answers: dict[str, Split] = {}
    for file in files:
        for item in read_rows(file):
            if isinstance(item, Problem):
                tally.leave_out_unreadable(item)
                continue
            record, where = unfold(item.values), f"{file}:{item.line}"
            request, answer, used = split_record(record)
            key = record.get("custom_id")
            if isinstance(key, str) and request is None and answer is None and has_failed(record):
                answer = {"error": True}  # a batch's request that failed
            found: Split = (record, request, answer, used, where)
            if not isinstance(key, str) or (found[1] is None) == (found[2] is None):
                yield found
                continue
            mine, others = (requests, answers) if found[2] is None else (answers, requests)
            other = others.pop(key, None)
            if other is None:
                if key in mine:
                    tally.read += 1
                    tally.leave_out(REPEATED, mine[key][-1])
                mine[key] = found
            else:
                yield _joined(*((found, other) if found[2] is None else (other, found)))
    for reason, left in ((NO_ANSWER_FILE, requests), (NO_REQUEST_FILE, answers)):
        for *_, where in left.values():
            tally.read += 1
            tally.leave_out(reason, where)


def _joined(request: Split, answer: Split) -> Split:
    return {**request[0], **answer[0]}, request[1], answer[2], request[3] | answer[3], answer[4]


# --- second pass: what the records say of one another -----------------------------------------------


def _second_pass(kept: IO[str], out: Path, options: LogOptions, seen: Seen, tally: Tally) -> None:
    drawn = seen.draw(options.limit, options.seed, every_turn=options.every_turn)
    written: set[str] = set()
    with writing(out) as write:
        for line in kept:
            found = json.loads(line)
            keys, where = Keys(found["whole"], tuple(found["earlier"])), found["where"]
            if not options.every_turn and keys.whole in seen.earlier:
                tally.leave_out(EARLIER_TURN, where)
            elif keys.whole in written:
                tally.leave_out(DUPLICATE, where)
            elif drawn is not None and keys.whole not in drawn:
                tally.leave_out(NOT_DRAWN, where)
            else:
                written.add(keys.whole)
                write(_finished(found["row"], keys, seen, options))
                tally.taken += 1


def _finished(row: Row, keys: Keys, seen: Seen, options: LogOptions) -> Row:
    """The row with what other records say of it: its count, its group, answers that are not to be learnt."""
    every = options.every_turn
    row["messages"] = untrain(row["messages"], [every or seen.is_untaught(key) for key in keys.earlier])
    if every and "group" not in row and (group := seen.group(keys)):
        row["group"] = group[:16]
    if seen.counts[keys.whole] > 1:
        row["count"] = seen.counts[keys.whole]
    return row
