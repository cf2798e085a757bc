"""More ways in which answers are not written alike: types, line ends, joints inside labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from luthier.audit.answer_shape import LEAST_OBJECTS, NEARLY_ALL, article, at, shape_of, type_of, walk
from luthier.audit.finding import Material, counted, shown
from luthier.examples.example import Example

Deviation = tuple[str, str, list[Example]]  # what was found, what to do, where
_JOINT = re.compile(r"(?<=[^\W\d_])[-_\s]+(?=[^\W\d_])")  # of "not-spam", "not_spam" and "not spam"


def mixed_types(examples: Sequence[Example], structures: Sequence[object]) -> list[Deviation]:
    """Places in JSON answers that hold several types, `null` apart; one deviation for each.

    Where nine in ten agree on one, the rest are schema violations, told one by one.
    """
    pairs = [(e, value) for e, value in zip(examples, structures, strict=True) if value is not None]
    agreed = len(pairs) >= max(LEAST_OBJECTS, NEARLY_ALL * len(examples))
    found: list[Deviation] = []
    for path, place in walk(shape_of([value for _, value in pairs])):
        types = Counter({name: n for name, n in place.types.items() if name != "null"}).most_common()
        if len(types) < 2 or (agreed and types[0][1] >= NEARLY_ALL * place.seen):
            continue
        fewer = {name for name, _ in types[1:]}
        members = [e for e, value in pairs if any(type_of(part) in fewer for part in at(value, path))]
        listed = ", ".join(f"{article(name)} in {n}" for name, n in types)
        message = f"{'.'.join(path) or 'the JSON answer'} is {listed}"
        found.append((message, "write it as one type; what reads the answers relies on it", members))
    return found


def line_ends(examples: Sequence[Example]) -> list[Deviation]:
    """Answers with carriage returns inside."""
    members = [example for example in examples if "\r" in example.answer.strip()]
    if not members:
        return []
    message = f"{counted(len(members), 'answer')} with Windows line ends"
    return [(message, "write line feeds alone; carriage returns are tokens too", members)]


def joined_labels(material: Material) -> list[Deviation]:
    """Labels that differ in what joins their words alone, such as `not-spam` and `not spam`."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in material.answers:
        spellings[_JOINT.sub(" ", answer)][answer] += 1
    mixed = [counts for counts in spellings.values() if len(counts) > 1]
    if not mixed:
        return []
    fewer = {answer for counts in mixed for answer, _ in counts.most_common()[1:]}
    members = [e for e, answer in zip(material.all, material.answers, strict=True) if answer in fewer]
    listed = ", ".join(shown(answer, 30) for answer, _ in mixed[0].most_common(3))
    message = f"{counted(len(mixed), 'label')} joined in several ways, such as {listed}"
    return [(message, "write each label in one way", members)]
