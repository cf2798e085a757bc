"""Inputs in another language than the others, and answers in another language than their inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown
from luthier.audit.languages import NAMES, language_of, prose_of
from luthier.examples.wording import split_words

Kind = TypeVar("Kind", bound=Hashable)
NEARLY_ALL = 0.9
LEAST_TOLD = 20  # texts whose language is known; fewer have no usual one
MOST_ASKED = 20_000  # texts; of more, evenly spaced ones
_LEAST_SOLID, _SOLID_SHARE = 5, 0.02  # of a language that texts are in, not one that few were taken for
_LISTED = 4
_SAMPLE = 200
_COMMON_WORDS, _COMMON_SHARE = 100, 0.3


def find_language_mix(material: Material) -> list[Finding]:
    """One finding per language that few inputs are in, and one per pair of languages that do not go together.

    Score is the share of the examples whose language is known. Code, JSON, labels and texts of a few words
    are in no language here. Where no language is that of nine inputs in ten, each may be meant: that is told
    once, as a fact; and so it is where some answers are in the language of their input, and some are not.

    Raises:
        NotApplicableError: too few texts are long enough to tell their language.
    """
    asked = ["\n".join(m.content for m in e.request if m.role == "user") or e.input for e in material.all]
    inputs = languages_of(asked)
    texts = not any(example.request for example in material.all)
    spoken = material.answer_kind == "text" and not texts
    answers = languages_of([example.answer for example in material.all]) if spoken else {}
    if max(len(inputs), len(answers)) < LEAST_TOLD:
        raise NotApplicableError("too few texts are long enough to tell their language")
    return [*_rare(material, inputs, "text" if texts else "input"), *_unlike(material, inputs, answers)]


def languages_of(texts: Sequence[str]) -> dict[int, str]:
    """Language by position, where it is known.

    A sample is asked about first. Texts of which a good part are the commonest words of its main language
    are then in that language too; the rest is asked about one by one, which costs most of the time.
    """
    step = max(1, len(texts) // MOST_ASKED)
    prose = {m: found for m in range(0, len(texts), step) if (found := prose_of(texts[m]))}
    places = list(prose)
    sample = places[:: max(1, len(places) // _SAMPLE)]
    known = {m: language for m in sample if (language := language_of(prose[m]))}
    if not known:
        return {}
    main, _ = Counter(known.values()).most_common(1)[0]
    words = Counter(word for m in known if known[m] == main for word in split_words(prose[m].casefold()))
    common = {word for word, _ in words.most_common(_COMMON_WORDS)} if len(sample) > _SAMPLE // 2 else set()
    for m in sorted(prose.keys() - set(sample)):
        own = split_words(prose[m].casefold())
        if sum(word in common for word in own) >= _COMMON_SHARE * len(own):
            known[m] = main
        elif language := language_of(prose[m]):
            known[m] = language
    return known


def _rare(material: Material, inputs: Mapping[int, str], noun: str) -> Iterator[Finding]:
    counts = Counter(inputs.values())
    if counts.total() < LEAST_TOLD:
        return
    (main, most), *others = counts.most_common()
    if most < NEARLY_ALL * counts.total():
        if told := _told(counts, main):
            total = counts.total()
            share = 1 - most / total
            listed = ", ".join(f"{n / total:.0%} {_name(own)}" for own, n in told)
            message = f"{noun}s in several languages: {listed}"
            fix = "add a system prompt or examples where one is weak, and look at the scores of each apart"
            yield Finding("language_mix", "info", share, message, fix)
        return
    for language, n in others:
        members = [m for m, own in inputs.items() if own == language]
        yield Finding(
            check="language_mix",
            severity="info",
            score=n / counts.total(),
            message=f"{counted(n, noun)} in {_name(language)}, where {most / counts.total():.1%} are in "
            f"{_name(main)}: {shown(_text(material, members[0]), 40)}",
            fix="keep them if such requests will come; then add more, and look at their scores apart",
            examples=tuple(material.all[m] for m in sorted(members)),
        )


def _unlike(material: Material, inputs: Mapping[int, str], answers: Mapping[int, str]) -> Iterator[Finding]:
    pairs = {m: (inputs[m], answers[m]) for m in inputs.keys() & answers.keys()}
    alike = sum(asked == said for asked, said in pairs.values())
    if len(pairs) < LEAST_TOLD:
        return
    if alike < NEARLY_ALL * len(pairs):
        yield from _some_unlike(material, pairs, alike)
        return
    for (asked, said), n in Counter(pair for pair in pairs.values() if pair[0] != pair[1]).most_common():
        members = sorted(m for m, pair in pairs.items() if pair == (asked, said))
        yield Finding(
            check="language_mix",
            severity="warning",
            score=n / len(pairs),
            message=f"{counted(n, 'answer')} in {_name(said)} to an input in {_name(asked)}, where "
            f"{alike / len(pairs):.1%} are in the language of their input: "
            f"{shown(material.all[members[0]].answer, 40)}",
            fix="answer in the language of the input",
            examples=tuple(material.all[m] for m in members),
        )


def _some_unlike(material: Material, pairs: Mapping[int, tuple[str, str]], alike: int) -> Iterator[Finding]:
    """What is told where both are common; where hardly an answer is in its input's language, it is a task."""
    members = sorted(m for m, (asked, said) in pairs.items() if asked != said)
    counts = Counter(pairs[m] for m in members)
    told = _told(counts, None, of=len(pairs))
    if alike < (1 - NEARLY_ALL) * len(pairs) or not told:
        return
    listed = ", ".join(f"{n / len(pairs):.0%} {_name(said)} to {_name(asked)}" for (asked, said), n in told)
    share = len(members) / len(pairs)
    message = f"{share:.0%} of the answers in another language than their input: {listed}"
    fix = "answer in the language of the input, or say in the input which language is wanted"
    yield Finding("language_mix", "info", share, message, fix, tuple(material.all[m] for m in members))


def _told(counts: Counter[Kind], main: Kind | None, *, of: int = 0) -> list[tuple[Kind, int]]:
    """The most frequent ones; none where those besides the main one are so rare that they may be errors."""
    total = of or counts.total()
    solid = [(kind, n) for kind, n in counts.most_common() if n >= max(_LEAST_SOLID, _SOLID_SHARE * total)]
    others = sum(n for kind, n in solid if kind != main)
    return solid[:_LISTED] if others >= (1 - NEARLY_ALL) * total else []


def _name(language: str) -> str:
    return NAMES.get(language, f"language {language!r}")


def _text(material: Material, m: int) -> str:
    return material.all[m].input or material.all[m].answer
