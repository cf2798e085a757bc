"""The audit's findings as the page shows them: by check, the worst first, with the texts that they are about.

Large files have more findings than a page can hold. Each check gets the same room in bytes; what does not
fit is counted, and stands in audit.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import PurePath

from luthier.audit import Finding
from luthier.card.masked import Masked, Piece, clip_pieces, show_edges
from luthier.card.plain_text import clean_text
from luthier.card.wording_changes import mark_changes
from luthier.examples.example import Example
from luthier.examples.wording import normalise

ORDER = {"error": 0, "warning": 1, "info": 2}
SIDE_BY_SIDE = ("label_conflict", "judgement_conflict")
ALIKE = ("near_duplicate", "leakage", "exact_duplicate")
EXAMPLES_SHOWN = 6
QUOTED_FROM = 50  # of a finding's examples, those that its message may quote
COLUMNS_SHOWN = 4
PLACES_SHOWN = 12
_TURNS_SHOWN = 4
_LETTERS = 600
_ANSWER_LETTERS = 300
_MARKUP_BYTES = 260  # of a text on the page, besides the text itself


@dataclass(frozen=True)
class Said:
    """One text of an example: who says it, and the text in pieces."""

    role: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Shown:
    """An example of a finding: its place, its side where there are several, and what is said in it.

    `also` are the places and sides of others in which the very same is said.
    """

    place: str
    side: str
    said: tuple[Said, ...]
    also: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Column:
    """An answer of a conflict, and the examples that give it."""

    answer: tuple[Piece, ...]
    count: int
    examples: tuple[Shown, ...]


@dataclass(frozen=True)
class Item:
    """A finding on the page.

    Attributes:
        fix: what to do, where it differs from that of the group.
        examples: those that are shown, or none where `columns` show them.
        columns: the answers of a conflict, the most frequent first.
        more: how many examples are not shown.
    """

    severity: str
    message: str
    fix: str
    examples: tuple[Shown, ...]
    columns: tuple[Column, ...]
    more: int

    @property
    def bytes(self) -> int:
        """About how much of the page it takes."""
        said = [text for e in self.examples for text in e.said]
        said += [text for column in self.columns for e in column.examples for text in e.said]
        texts = [piece.text for text in said for piece in text.pieces]
        texts += [piece.text for column in self.columns for piece in column.answer]
        length = sum(len(escape(text).encode()) + 40 for text in (*texts, self.message, self.fix))
        places = sum(
            len(e.also) + 1 for e in (*self.examples, *(e for c in self.columns for e in c.examples))
        )
        return length + _MARKUP_BYTES * (1 + len(said) + len(self.columns)) + 60 * places


@dataclass(frozen=True)
class Group:
    """What one check found.

    Attributes:
        severity: the worst one.
        fix: what to do about most of it.
        items: the worst first.
        left_out: how many more there are.
    """

    check: str
    severity: str
    fix: str
    items: tuple[Item, ...]
    left_out: int

    @property
    def count(self) -> int:
        """How often the check found something."""
        return len(self.items) + self.left_out


def group_findings(
    findings: Sequence[Finding], counts: Mapping[str, int], sides: Mapping[str, str], most_bytes: int
) -> list[Group]:
    """The findings by check, errors first.

    Args:
        counts: how many there are of each check, where there may be more than `findings`.
        sides: side by place of example (`file:line`); empty where there is one.
        most_bytes: for the page's texts of all findings together.
    """
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    room = most_bytes // max(1, len(by_check))
    groups = [_group(found, counts.get(check, 0), sides, room) for check, found in by_check.items()]
    return sorted(groups, key=lambda group: ORDER.get(group.severity, 3))


def _group(found: Sequence[Finding], count: int, sides: Mapping[str, str], room: int) -> Group:
    ranked = sorted(found, key=lambda f: (ORDER.get(f.severity, 3), -(f.score or 0.0)))
    (fix, _), *_ = Counter(finding.fix for finding in found).most_common(1)
    items: list[Item] = []
    used = 0
    for finding in ranked:
        item = _item(finding, sides, fix)
        used += item.bytes
        if items and used > room:
            break
        items.append(item)
    total = max(count, len(found))
    return Group(ranked[0].check, ranked[0].severity, fix, tuple(items), total - len(items))


def _item(finding: Finding, sides: Mapping[str, str], usual_fix: str) -> Item:
    members = finding.examples
    examples: tuple[Shown, ...] = ()
    columns: tuple[Column, ...] = ()
    if finding.check in SIDE_BY_SIDE and members:
        columns = _columns(members, sides)
    elif finding.check in ALIKE:
        examples = _alike(members, sides)
    else:
        examples = tuple(_plain(example, sides) for example in members[:EXAMPLES_SHOWN])
    drawn = [*examples, *(e for column in columns for e in column.examples)]
    shown = {place for e in drawn for place in (e.place, *(place for place, _ in e.also))}
    masked = Masked([finding.message, *(t for e in members[:QUOTED_FROM] for t in e.texts)])
    return Item(
        finding.severity,
        masked.hide(finding.message),
        "" if finding.fix == usual_fix else finding.fix,
        examples,
        columns,
        len({place_of(example) for example in members} - shown),
    )


def place_of(example: Example) -> str:
    """`file:line` with the file's base name, which is what a reader on another machine can use."""
    return clean_text(f"{PurePath(example.file).name}:{example.line}")


def _plain(example: Example, sides: Mapping[str, str]) -> Shown:
    """The last turns, and the worse answers."""
    masked = Masked(example.texts)
    turns = example.messages[-_TURNS_SHOWN:]
    role = "" if example.request else "text"
    said = [Said(role or f"{m.role} {m.name}".strip(), _clipped(masked, m.text)) for m in turns]
    if said:
        said[-1] = replace(said[-1], pieces=tuple(show_edges(said[-1].pieces)))
    if left_out := len(example.messages) - len(turns):
        said.insert(0, Said("", (Piece(f"{left_out} earlier turns"),)))
    said += [Said("rejected", _clipped(masked, text)) for text in example.rejected[:2]]
    return Shown(place_of(example), _side(example, sides), tuple(said))


def _alike(members: Sequence[Example], sides: Mapping[str, str]) -> tuple[Shown, ...]:
    """Requests with the words that differ, and their answers."""
    same = _same(members, lambda example: tuple(example.texts))
    chosen = [own[0] for own in same]
    masked = Masked(text for example in chosen for text in example.texts)
    asked = mark_changes([masked.hide(_request(example)) for example in chosen])
    return tuple(
        _shown(
            own,
            sides,
            Said("user" if own[0].request else "text", tuple(clip_pieces(pieces, _LETTERS))),
            *_answers(own[0], masked),
        )
        for own, pieces in zip(same, asked, strict=True)
    )


def _same(
    members: Sequence[Example], texts: Callable[[Example], Hashable], most: int = EXAMPLES_SHOWN
) -> list[list[Example]]:
    """Those with the same texts together, in the order of the first; the first `most` of them."""
    found: dict[Hashable, list[Example]] = {}
    for example in members:
        found.setdefault(texts(example), []).append(example)
    return list(found.values())[:most]


def _shown(own: Sequence[Example], sides: Mapping[str, str], *said: Said) -> Shown:
    """Examples in which the same is said."""
    first, *others = own[:PLACES_SHOWN]
    also = tuple((place_of(example), _side(example, sides)) for example in others)
    return Shown(place_of(first), _side(first, sides), said, also)


def _answers(example: Example, masked: Masked) -> list[Said]:
    if not example.request:
        return []
    said = [Said("assistant", _clipped(masked, example.answer, _ANSWER_LETTERS))]
    return said + [Said("rejected", _clipped(masked, text, _ANSWER_LETTERS)) for text in example.rejected[:1]]


def _columns(members: Sequence[Example], sides: Mapping[str, str]) -> tuple[Column, ...]:
    """The members by answer, with the words in which their requests differ."""
    by_answer: dict[tuple[str, str], list[Example]] = {}
    for example in members:
        for verdict, text in _judged(example):
            by_answer.setdefault((verdict, normalise(text)), []).append(example)
    judged = Counter(normal for _, normal in by_answer)
    ranked = sorted(by_answer.items(), key=lambda pair: (-judged[pair[0][1]], -len(pair[1])))[:COLUMNS_SHOWN]
    same = [_same(own, _request) for _, own in ranked]
    chosen = [own[0] for column in same for own in column]
    masked = Masked(text for example in chosen for text in example.texts)
    asked = iter(mark_changes([masked.hide(_request(example)) for example in chosen]))
    columns = []
    for ((verdict, normal), own), alike in zip(ranked, same, strict=True):
        text = next(t for v, t in _judged(own[0]) if (v, normalise(t)) == (verdict, normal))
        head = (Piece(f"{verdict}: "),) if verdict else ()
        shown = tuple(
            _shown(equal, sides, Said("", tuple(clip_pieces(next(asked), _LETTERS)))) for equal in alike
        )
        columns.append(Column((*head, *_clipped(masked, text, _ANSWER_LETTERS)), len(own), shown))
    return tuple(columns)


def _judged(example: Example) -> list[tuple[str, str]]:
    """Every answer of an example, with what is thought of it where worse ones are known."""
    if not example.rejected and example.wanted:
        return [("", example.answer)]
    own = ("good" if example.wanted else "bad", example.answer)
    return [own, *(("bad", text) for text in example.rejected)]


def _request(example: Example) -> str:
    """What was asked, every turn but the system prompt; a text that nobody asked for is itself."""
    said = [m.text for m in example.request if m.role != "system"]
    return "\n".join(said) if said else example.answer


def _side(example: Example, sides: Mapping[str, str]) -> str:
    return sides.get(example.where, "")


def _clipped(masked: Masked, text: str, most: int = _LETTERS) -> tuple[Piece, ...]:
    return tuple(clip_pieces(masked.pieces(text), most))
