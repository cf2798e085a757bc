"""Inputs in another language than the others, and answers in another language than their inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown
from luthier.audit.languages import NAMES, language_of, prose_of
from luthier.examples.wording import split_words

NEARLY_ALL = 0.9
LEAST_TOLD = 20  # texts whose language is known; fewer have no usual one
MOST_ASKED = 20_000  # texts; of more, evenly spaced ones
_SAMPLE = 200
_COMMON_WORDS, _COMMON_SHARE = 100, 0.3


def find_language_mix(material: Material) -> list[Finding]:
    """One finding per language that few inputs are in, and one per pair of languages that do not go together.

    Score is the share of the examples whose language is known. Code, JSON, labels and texts of a few words
    are in no language here; and where no language is that of nine inputs in ten, each may be meant.

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
    if len(pairs) < LEAST_TOLD or alike < NEARLY_ALL * len(pairs):
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


def _name(language: str) -> str:
    return NAMES.get(language, f"language {language!r}")


def _text(material: Material, m: int) -> str:
    return material.all[m].input or material.all[m].answer
