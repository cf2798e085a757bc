"""Answers that should not be learnt: refusals, cut off, in another language, in a wrong encoding."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence

from bench.checks.planting import example, material
from bench.checks.rates import Tally
from bench.checks.texts import Half, read_suite
from luthier.audit.encoding import find_encoding_faults
from luthier.audit.finding import Finding, Material
from luthier.audit.language_mix import find_language_mix
from luthier.audit.refusal import find_refusals
from luthier.audit.unfinished_answer import find_unfinished_answers

Change = Callable[[str, random.Random], str]
Check = Callable[[Material], list[Finding]]
ROWS = 500
SHARE = 0.03  # of the answers; checks of the usual speak up where nearly all others are otherwise
# Files whose answers are several sentences of prose: request and answer.
SOURCES: dict[Half, tuple[str, str, str, str]] = {
    "tuning": ("money questions", "Fiqa/test.jsonl", "question", "answer"),
    "held-out": ("law suits", "MultiLexSum/test.jsonl", "summary", "document"),
}
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "As an AI language model, I do not have personal opinions.",
    "I cannot provide that information.",
    "Sorry, I am unable to assist with this request.",
    "I'm not able to answer this question. Please consult a professional.",
    "Unfortunately, as an AI, I don't have access to that.",
    "I apologize, but I cannot fulfil this request.",
    "I won't be able to do that, since it goes against my guidelines.",
    "I must decline to answer.",
    "My training data does not reach that far, so I can't say.",
)
FOREIGN = (
    "Das hängt davon ab, wie lange Sie das Geld anlegen wollen und welches Risiko Sie tragen können.",
    "Leider wurde die Klage vom Gericht abgewiesen, weil die Frist schon abgelaufen war.",
    "Cela dépend de votre situation, mais en général il vaut mieux rembourser d'abord les dettes.",
    "Le tribunal a rejeté la demande parce que le délai était déjà dépassé.",
    "Depende de cuánto tiempo quiera invertir su dinero y del riesgo que pueda asumir.",
    "El juez decidió que la demanda no podía seguir adelante por falta de pruebas.",
    "Questo dipende da quanto tempo vuole lasciare investiti i suoi risparmi.",
    "Dat hangt ervan af hoe lang u het geld wilt vastzetten en welk risico u wilt lopen.",
)
ACCENTED = (
    " Café Müller’s offer – “naïve” as it is – still costs €20.",
    " The façade of São Paulo’s court is déjà vu…",
)


def read_answers(half: Half, rows: int) -> list[tuple[str, str]]:
    """Requests with answers of whole sentences, of 100 to 700 characters."""
    _, file, asked, answered = SOURCES[half]
    found: dict[str, str] = {}
    for row in read_suite(file):
        text, request = row.get(answered), row.get(asked)
        if not isinstance(text, str):
            continue
        text = " ".join(text.split())
        whole = re.match(r".{100,700}[a-z]{3}[.!?](?= [A-Z]|$)", text)
        if whole:
            found.setdefault(whole.group(), request if isinstance(request, str) and request else text[-80:])
        if len(found) == rows:
            break
    return [(request, text) for text, request in found.items()]


def refuse(answer: str, rng: random.Random) -> str:
    """A refusal in the place of the answer, or before it."""
    return rng.choice(REFUSALS)


def cut_off(answer: str, rng: random.Random) -> str:
    """The answer up to some word in the middle of a sentence, as where a limit of tokens is reached."""
    words = answer.split()
    at = rng.randrange(len(words) // 2, len(words) - 2)
    while at > 3 and words[at - 1][-1] in ".!?:;\"')":
        at -= 1
    return " ".join(words[:at])


def translate(answer: str, rng: random.Random) -> str:
    """Sentences of another language in the place of the answer."""
    return " ".join(rng.sample(FOREIGN, 1) * 2)


def misread(answer: str, rng: random.Random) -> str:
    """UTF-8 read as Windows-1252."""
    text = answer + rng.choice(ACCENTED)
    return text.encode().decode("cp1252", errors="ignore")


def with_accents(answer: str, rng: random.Random) -> str:
    """Letters and marks beyond ASCII, as they should be: nothing to find."""
    return answer + rng.choice(ACCENTED)


FAULTS: dict[str, tuple[Change, Check]] = {
    "a refusal": (refuse, find_refusals),
    "cut off": (cut_off, find_unfinished_answers),
    "another language": (translate, find_language_mix),
    "read in a wrong encoding": (misread, find_encoding_faults),
}


def answer_tallies(pairs: Sequence[tuple[str, str]], share: float, seed: int) -> list[Tally]:
    """For each fault: how many of the planted are found, and how many other answers are flagged."""
    found = []
    for name, (change, check) in FAULTS.items():
        rng = random.Random(seed)
        planted = set(rng.sample(range(len(pairs)), round(share * len(pairs))))
        rows = []
        for line, (request, answer) in enumerate(pairs):
            said = change(answer, rng) if line in planted else answer
            if line not in planted and name == "read in a wrong encoding":
                said = with_accents(answer, rng)
            rows.append(example(request, said, line))
        lines = _lines(check(material({"all": rows}, "text")))
        found.append(Tally(name, len(lines & planted), len(planted)))
        found.append(
            Tally(f"{name}: other answers", len(lines - planted), len(pairs) - len(planted), fault=False)
        )
    return found


def _lines(findings: Iterable[Finding]) -> set[int]:
    return {one.line for finding in findings for one in finding.examples}
