"""One text said in other words, by rules of our own, from the slightest change to the heaviest.

A rule returns None where it has nothing to change. No rule changes what is asked.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Rule = Callable[[str, random.Random], str | None]

OPENERS = ("hi, ", "hello, ", "please tell me: ", "quick question: ", "could you help me, ", "ok so ")
CLOSERS = (" please", " thanks", " thank you in advance", ", any help is welcome", ", thx")
CHATTER = (
    *("Greetings! {}", "I've been trying to find this out for days: {}", "a friend asked me this: {}"),
    *("not sure if this is the right place but {}", "{} - any ideas", "{} help!!", "{} (urgent)"),
    *("{} would love to know", "{} I'd be grateful", "long time reader here. {}", "{} TIA"),
)
INSERTED = ("really", "actually", "just", "basically", "exactly", "then")
CONTRACTIONS = (
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("did not", "didn't"),
    ("is not", "isn't"),
    ("are not", "aren't"),
    ("was not", "wasn't"),
    ("cannot", "can't"),
    ("can not", "can't"),
    ("will not", "won't"),
    ("would not", "wouldn't"),
    ("should not", "shouldn't"),
    ("what is", "what's"),
    ("who is", "who's"),
    ("where is", "where's"),
    ("how is", "how's"),
    ("that is", "that's"),
    ("it is", "it's"),
    ("there is", "there's"),
    ("i am", "i'm"),
    ("i have", "i've"),
    ("i will", "i'll"),
    ("you are", "you're"),
    ("they are", "they're"),
    ("we are", "we're"),
)
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
# Pairs of words of which one can stand for the other in most sentences; used in both directions.
SYNONYMS = (
    *(("big", "large"), ("small", "little"), ("buy", "purchase"), ("begin", "start"), ("begins", "starts")),
    *(("show", "display"), ("fix", "repair"), ("help", "assist"), ("use", "utilise"), ("used", "utilised")),
    *(("get", "obtain"), ("need", "require"), ("needs", "requires"), ("find", "locate"), ("end", "finish")),
    *(("kid", "child"), ("kids", "children"), ("movie", "film"), ("car", "automobile"), ("cause", "reason")),
    *(("doctor", "physician"), ("illness", "disease"), ("medicine", "drug"), ("symptoms", "signs")),
    *(("treat", "cure"), ("treatment", "therapy"), ("treated", "cured"), ("quick", "fast"), ("total", "sum")),
    *(
        ("many", "numerous"),
        ("often", "frequently"),
        ("total", "overall"),
        ("money", "cash"),
        ("pay", "settle"),
    ),
    *(
        ("firm", "company"),
        ("business", "enterprise"),
        ("house", "home"),
        ("job", "occupation"),
        ("live", "reside"),
    ),
    *(
        ("allowed", "permitted"),
        ("happen", "occur"),
        ("happens", "occurs"),
        ("die", "perish"),
        ("ill", "sick"),
    ),
    *(
        ("make", "produce"),
        ("made", "produced"),
        ("called", "named"),
        ("first", "initial"),
        ("last", "final"),
    ),
    *(
        ("old", "aged"),
        ("new", "recent"),
        ("main", "principal"),
        ("important", "significant"),
        ("story", "tale"),
    ),
    *(
        ("wrote", "authored"),
        ("sings", "performs"),
        ("won", "gained"),
        ("play", "perform"),
        ("played", "performed"),
    ),
    *(("type", "kind"), ("types", "kinds"), ("people", "persons"), ("give", "provide"), ("gave", "provided")),
    *(("stop", "halt"), ("keep", "retain"), ("left", "departed"), ("went", "travelled"), ("said", "stated")),
    *(
        ("information", "data"),
        ("collect", "gather"),
        ("share", "disclose"),
        ("police", "officers"),
        ("man", "bloke"),
    ),
    *(("bad", "poor"), ("good", "fine"), ("wants", "wishes"), ("want", "wish"), ("difficult", "hard")),
    *(("tax", "levy"), ("stock", "equity"), ("shares", "stocks"), ("bank", "lender"), ("city", "town")),
    *(
        ("picture", "photo"),
        ("each", "every"),
        ("likely", "probably"),
        ("place", "spot"),
        ("dangerous", "hazardous"),
    ),
)
_OTHER = dict(SYNONYMS) | {b: a for a, b in SYNONYMS}
_CLAUSE = re.compile(
    r"^(.{12,}?),? (if|when|because|after|before|while|since|although) (.{8,}?)([.?!]?)$", re.I | re.S
)


def change_surface(text: str, rng: random.Random) -> str | None:
    """Other capitals, spaces and sentence marks."""
    changed = rng.choice((str.upper, str.lower, str.title))(text) if rng.random() < 0.7 else text
    changed = rng.choice(("  " + changed, changed.replace(" ", "  ", 2), changed + " \n"))
    ends = changed.rstrip().rstrip(".?!")
    return ends + rng.choice(("", "!", "??", "...", " ?"))


def slip(text: str, rng: random.Random) -> str | None:
    """One slip of the pen in a word of five letters or more: letters swapped, one lost, one twice."""
    places = list(re.finditer(r"[A-Za-z]{5,}", text))
    if not places:
        return None
    match = rng.choice(places)
    word, at = match.group(), rng.randrange(1, len(match.group()) - 1)
    if word[at] == word[at + 1]:
        at -= 1
    slips = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    changed = rng.choice([one for one in slips if one != word])
    return text[: match.start()] + changed + text[match.end() :]


def add_filler(text: str, rng: random.Random) -> str | None:
    """An opening or closing courtesy, or both."""
    which = rng.randrange(3)
    opened = rng.choice(OPENERS) + text if which != 1 else text
    return opened.rstrip(" .?!") + rng.choice(CLOSERS) if which != 0 else opened


def add_chatter(text: str, rng: random.Random) -> str | None:
    """Something around it that no list of courtesies was written with."""
    return rng.choice(CHATTER).format(text)


def insert_filler(text: str, rng: random.Random) -> str | None:
    """One word in the middle that says nothing."""
    words = text.split()
    words.insert(rng.randrange(2, len(words)), rng.choice(INSERTED))
    return " ".join(words)


def contract(text: str, rng: random.Random) -> str | None:
    """`what is` as `what's`, or the other way."""
    for long, short in rng.sample(CONTRACTIONS, len(CONTRACTIONS)):
        for a, b in ((long, short), (short, long)):
            changed, times = re.subn(rf"\b{a}\b", b, text, count=1, flags=re.I)
            if times:
                return changed
    return None


def spell_numbers(text: str, rng: random.Random) -> str | None:
    """Numbers to twenty as words, or as digits."""

    def other(match: re.Match[str]) -> str:
        found = match.group()
        return NUMBERS[int(found)] if found.isdigit() else str(NUMBERS.index(found.lower()))

    words = "|".join(NUMBERS[2:])
    changed = re.sub(rf"(?<![\w.,:/+$£€-])(?:\d|1\d|20|{words})(?![\w%/:+-]|[.,]\d)", other, text, flags=re.I)
    return changed if changed != text else None


def move_clause(text: str, rng: random.Random) -> str | None:
    """A clause of time or reason from the end to the front, or two sentences in the other order."""
    if match := _CLAUSE.match(text):
        main, joint, side, mark = match.groups()
        return f"{joint.capitalize()} {side}, {main}{mark}"
    sentences = re.split(r"(?<=[a-z]{3}[.!?]) (?=[A-Z])", text)
    if len(sentences) > 2:
        at = rng.randrange(len(sentences) - 2)
        sentences[at], sentences[at + 1] = sentences[at + 1], sentences[at]
        return " ".join(sentences)
    return None


def replace_one(text: str, rng: random.Random) -> str | None:
    """One word by another of the same meaning."""
    return _replace(text, rng, 1)


def replace_many(text: str, rng: random.Random) -> str | None:
    """Two or three words by others of the same meaning."""
    return _replace(text, rng, 3, least=2)


def reword(text: str, rng: random.Random) -> str | None:
    """Several of the above at once: another word, a courtesy, a slip, and what else there is to change."""
    changed = _replace(text, rng, 3)
    if changed is None:
        return None
    for rule in (contract, move_clause, slip, add_filler):
        changed = rule(changed, rng) or changed
    return changed


def _replace(text: str, rng: random.Random, most: int, *, least: int = 1) -> str | None:
    places = [match for match in re.finditer(r"[A-Za-z]+", text) if match.group().lower() in _OTHER]
    if len(places) < least:
        return None
    for match in sorted(rng.sample(places, min(most, len(places))), key=lambda m: -m.start()):
        word = match.group()
        other = _OTHER[word.lower()]
        other = other.capitalize() if word[0].isupper() else other
        text = text[: match.start()] + other + text[match.end() :]
    return text


SLIGHT: dict[str, Rule] = {
    "a courtesy added": add_filler,
    "one slip of the pen": slip,
    "a contraction": contract,
    "numbers as words or digits": spell_numbers,
    "an empty word inserted": insert_filler,
    "clauses in another order": move_clause,
}
HEAVY: dict[str, Rule] = {
    "chatter around it": add_chatter,
    "one synonym": replace_one,
    "two or three synonyms": replace_many,
    "reworded": reword,
}
