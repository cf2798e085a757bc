"""How assistants refuse, say what they are, and begin: our own list of phrases in ten languages.

Texts are looked at in lower case, with one kind of apostrophe and one space between words. A phrase is a
pattern and a marker: words that stand in all it matches and are looked for first, since that costs little.
"""

from __future__ import annotations

import re

Phrase = tuple[str, re.Pattern[str]]


def plain(text: str) -> str:
    """A text as the phrases are written: lower case, one kind of apostrophe, one space between words.

    >>> plain("I  can’t")
    "i can't"
    """
    text = text.replace("’", "'").replace("`", "'").casefold()
    if "  " not in text and text.isprintable():  # the only space that is printable is " "
        return text.strip(" ")
    return " ".join(text.split())


def may_hold_phrase(said: str) -> bool:
    """A quick look whether a plain text may hold a refusal or a self-reference."""
    return any([marker in said for marker in _MARKERS])  # noqa: C419 a list takes half the time


def find_phrase(said: str, phrases: tuple[Phrase, ...]) -> str | None:
    """The first phrase in a plain text, or None."""
    for marker, pattern in phrases:
        if marker in said and (match := pattern.search(said)):
            return match.group()
    return None


def _phrases(*pairs: tuple[str, str]) -> tuple[Phrase, ...]:
    return tuple((marker, re.compile(pattern)) for marker, pattern in pairs)


_HELP = (
    r"(?:be able to )?(?:assist|comply|fulfill?|engage in|participate in|help (?:you )?with (?:that|this)\b)"
)
_SUCH = r"(?:that|this|such|explicit|harmful|illegal|medical advice|legal advice)\b"
_DO = rf"(?:{_HELP}|(?:provide|create|generate|write|produce|answer|discuss|continue|do) {_SUCH})"
_START = r"(?:^|[.!?,:;] )(?:but |so |unfortunately, |however, )?"

REFUSALS = _phrases(
    ("i can't", rf"{_START}i can't {_DO}"),
    ("i cannot", rf"{_START}i cannot {_DO}"),
    ("i can not", rf"{_START}i can not {_DO}"),
    ("i won't", rf"{_START}i won't {_DO}"),
    ("i will not", rf"{_START}i will not {_DO}"),
    ("able to", rf"\bi(?: am|'m) (?:not able|unable) to {_DO}"),
    ("i must", rf"\bi must (?:decline|refuse)\b(?: to {_DO})?"),
    (
        "ich kann",
        r"\bich kann (?:dir|ihnen|dabei|das|diese anfrage)[^.!?]{0,30}nicht (?:\w+)?(?:helfen|erfüllen)",
    ),
    ("kann ich", r"\bkann ich (?:dir|ihnen|dabei|das)?[^.!?]{0,30}nicht (?:weiter)?(?:helfen|behilflich)"),
    (
        "je ne",
        r"\bje ne (?:peux|puis) pas (?:vous |t')?(?:aider|assister|fournir|répondre à (?:cette|votre|ta))",
    ),
    ("mesure de", r"\bje ne suis pas en mesure d(?:e |')(?:vous |t')?(?:aider|assister|fournir|répondre)"),
    ("no puedo", r"\bno puedo (?:ayudar|asistir|cumplir|proporcionar (?:es[aoe]|est[ae]|tal|ning))"),
    ("não posso", r"\bnão posso (?:te |lhe |o |a )?(?:ajudar|atender|fornecer|cumprir)"),
    ("non posso", r"\bnon posso (?:aiutar|assister|soddisfare|fornire (?:quest|tal|alcun))"),
    ("ik kan", r"\bik kan (?:je|u|hier|daar)[^.!?]{0,25}niet (?:bij |mee )?(?:helpen|assisteren)"),
    ("не могу", r"я не могу (?:с этим |вам |тебе )?(?:помочь|выполнить|ответить на (?:этот|ваш|такой))"),
    ("不能", r"我不能(?:协助|帮助|提供此类|提供这|满足)"),
    ("无法", r"(?:我)?无法(?:协助|帮助您|提供此类|满足您|回答这)"),
    ("できません", r"(?:お手伝い|お答え|ご提供|対応|お応え)(?:することは|は)?できません"),
)

SELF_REFERENCES = _phrases(
    ("as a", r"\bas an? (?:large |powerful )?(?:ai\b|artificial intelligence|language model)"),
    ("an ai", r"\bi(?: am|'m) (?:just |only |merely |simply )?an ai\b"),
    ("language model", r"\bi(?: am|'m) (?:just |only |merely )?an? (?:large )?language model"),
    ("knowledge cut", r"\bmy knowledge cut-? ?off"),
    ("my last", r"\bas of my last (?:knowledge )?(?:update|training)"),
    ("not have personal", r"\bi do not have personal (?:opinions|beliefs|feelings|experiences|preferences)"),
    ("n't have personal", r"\bi don't have personal (?:opinions|beliefs|feelings|experiences|preferences)"),
    ("by openai", r"\b(?:trained|developed|created|made) by openai"),
    ("by anthropic", r"\b(?:trained|developed|created|made) by anthropic"),
    ("als ", r"\bals (?:eine? )?(?:ki\b|künstliche intelligenz|(?:großes )?sprachmodell)"),
    (
        "en tant qu",
        r"\ben tant qu(?:'une? |'|e )(?:ia\b|intelligence artificielle|assistant ia|modèle de langage)",
    ),
    ("como ", r"\bcomo (?:una? |uma? )?(?:ia\b|intelig[eê]ncia artificial|modelo de (?:lenguaje|linguagem))"),
    ("come ", r"\bcome (?:un'|una? )?(?:ia\b|intelligenza artificiale|modello (?:di )?linguistico)"),
    ("als ", r"\bals (?:een )?(?:ai\b|ai-|taalmodel|kunstmatige intelligentie)"),
    ("как ", r"(?:^|\W)как (?:ии\b|искусственный интеллект|языковая модель)"),
    ("作为", r"作为(?:一个|一名)?(?:ai|人工智能|语言模型|大型语言模型)"),
    ("として", r"(?:ai|人工知能|言語モデル)(?:アシスタント)?として"),
)

_MARKERS = tuple(dict.fromkeys(marker for marker, _ in (*REFUSALS, *SELF_REFERENCES)))
OPENING_WORDS = (  # what `OPENINGS` begin with, in folded case
    *("sure", "certainly", "of", "absolutely", "here", "great", "good", "excellent", "what", "i"),
    *("natürlich", "klar", "gerne", "selbstverständlich", "sicher", "bien", "claro", "por", "con", "certo"),
    *("certamente", "natuurlijk", "конечно", "разумеется", "当然", "好的"),
)
OPENINGS = re.compile(
    "|".join(
        (
            r"(?:sure|certainly|of course|absolutely)(?: thing)?[!,.:]+ (?:here|i'd be|i can|i'll|let)",
            r"here(?:'s| is| are) (?:the|an?|some|your) [^.:]{0,60}(?:you (?:asked|wanted)|requested)",
            r"(?:great|good|excellent|what a (?:great|good)) question[!.,]",
            r"i'd be (?:happy|glad|delighted) to help",
            r"(?:natürlich|klar|gerne|selbstverständlich|sicher)[!,.:]+ (?:hier|ich)",
            r"bien sûr ?[!,.:]+ (?:voici|je)",
            r"(?:claro|por supuesto|con gusto)[!,.:]+ (?:aquí|aqui|que)",
            r"(?:certo|certamente)[!,.:]+ ecco",
            r"natuurlijk[!,.:]+ hier",
            r"(?:конечно|разумеется)[!,.:]+ вот",
            r"(?:当然|好的)[！!,，。:]+ ?(?:这|以下|下面)",
        )
    )
)
