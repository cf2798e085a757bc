"""Items of the public test suites in what is trained on: scores on those suites would then mean nothing.

As in the contamination checks of GPT-3 (Brown et al. 2020, appendix C: 8 to 13 words in common) and Llama 2
(Touvron et al. 2023, appendix A.6: share of an item that is covered), words decide, in order and without
sentence marks: a text of the suite that stands there as a whole, of 8 words or more; or 13 words in a row
that are at least half of it; or 50 words in a row.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown
from luthier.audit.suite_index import LONG_RUN, RUN, SuiteIndex
from luthier.examples.example import Example
from luthier.examples.wording import normalise, split_words

HALF, PASSAGE = 0.5, 50
_AT_ONCE = 1000  # examples


def find_suite_leakage(material: Material) -> list[Finding]:
    """One finding per suite, with the examples that hold items of it; score is their share.

    The test side is not looked at, and neither is a suite that the examples were read from.

    Raises:
        NotApplicableError: the suites are not at hand.
    """
    if material.suites is None:
        raise NotApplicableError("the public suites are not in the cache; the forgetting probe fetches them")
    trained = [e for e, side in zip(material.all, material.side_of, strict=True) if side != "test"]
    by_suite: dict[str, list[tuple[Example, int, str]]] = defaultdict(list)
    for start in range(0, len(trained), _AT_ONCE):
        for example, text, run in suite_items(trained[start : start + _AT_ONCE], material.suites):
            by_suite[material.suites.where(text).rpartition("/")[0]].append((example, text, run))
    findings = []
    for suite, found in by_suite.items():
        members = tuple(dict.fromkeys(example for example, _, _ in found))
        _, text, run = found[0]
        n = len(members)
        message = f"{counted(n, 'example')} {'holds' if n == 1 else 'hold'} test items of the public suite "
        message += f"{suite}, such as {material.suites.where(text)}: {shown(run)}"
        fix = "leave them out, or never quote a score on that suite"
        findings.append(Finding("suite_leakage", "warning", n / len(trained), message, fix, members))
    return findings


def suite_items(examples: Sequence[Example], suites: SuiteIndex) -> Iterator[tuple[Example, int, str]]:
    """For each example the texts of the suites that it holds, and the words in common."""
    words = [[word for text in e.texts for word in split_words(normalise(text))] for e in examples]
    own = {file: _own_suite(file, suites.folder) for file in {example.file for example in examples}}
    looked_at: dict[tuple[int, int], int] = {}  # up to which word; a leak to the end
    for number, at, text in suites.look_up(words):
        if at < looked_at.get((number, text), 0) or suites.where(text).startswith(
            own[examples[number].file] or "\0"
        ):
            continue
        item = suites.words_of(text)
        first, end = _common_run(words[number], at, item)
        looked_at[number, text] = end
        if _is_leak(end - first, len(item)):
            looked_at[number, text] = len(words[number])
            yield examples[number], text, " ".join(words[number][first:end])


def _is_leak(run: int, whole: int) -> bool:
    return run >= RUN and (run == whole or run >= PASSAGE or (run >= LONG_RUN and run >= HALF * whole))


def _common_run(words: Sequence[str], at: int, item: Sequence[str]) -> tuple[int, int]:
    """The longest run of words around `at` that an item has too: from, and up to; (0, 0) for a mere hash."""
    best = 0, 0
    wanted = list(words[at : at + RUN])
    for place in _places(item, words[at]):
        if list(item[place : place + RUN]) != wanted:
            continue
        before = 0
        while before < min(at, place) and words[at - before - 1] == item[place - before - 1]:
            before += 1
        after = RUN
        while (
            at + after < len(words) and place + after < len(item) and words[at + after] == item[place + after]
        ):
            after += 1
        if before + after > best[1] - best[0]:
            best = at - before, at + after
    return best


def _places(words: Sequence[str], word: str) -> Iterator[int]:
    place = -1
    with contextlib.suppress(ValueError):
        while True:
            place = words.index(word, place + 1)
            yield place


def _own_suite(file: str, folder: Path) -> str | None:
    """The suite that a file of examples belongs to, a folder's name with a slash; None: it is the user's."""
    try:
        inside = Path(file).resolve().relative_to(folder.resolve())
    except (ValueError, OSError):
        return None
    return f"{inside.parent.as_posix()}/"
