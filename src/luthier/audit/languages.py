"""Which natural language a text is in, told only where it is sure.

py3langid: naive Bayes over byte n-grams (Lui and Baldwin, "langid.py: An Off-the-shelf Language
Identification Tool", 2012), 140 languages, BSD licence; its probabilities hold across lengths. What is no
prose (code, JSON, addresses, names of products) is not asked about.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable

SURE = 0.9
LEAST_LETTERS, LEAST_WORDS, LEAST_SIGNS = 25, 5, 10  # signs: of scripts that write a word with one or two
_LOOKED_AT = 400  # characters
_NO_PROSE = re.compile(
    r"```.*?(?:```|$)|`[^`\n]*`|https?://\S+|\S+@\S+|</?\w[^<>]*>|\S*[\d_/\\{}<>=|]\S*", re.DOTALL
)
_CODE = re.compile(
    r"[;{}]\s*$|^\s*(?:def|class|import|from|return|public|SELECT|#include|function|var|const)\b", re.M
)
_SIGNS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
_LATIN_NAME = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_UNTOLD = ("zxx", "und", "la")  # none, unknown, and Latin, which medicine and law speak in any language
_CANDIDATES = 8
# Languages that short texts do not tell apart go by one name.
_ALIKE = {
    **dict.fromkeys(("nb", "nn", "da"), "no"),
    **dict.fromkeys(("hr", "bs", "sr", "sl"), "sh"),
    **dict.fromkeys(("ms", "jv", "su"), "id"),
    **dict.fromkeys(("sk",), "cs"),
    **dict.fromkeys(("gl", "ast", "an", "oc", "ca"), "es"),
    **dict.fromkeys(("arz", "ary", "acm", "apc", "ars", "aeb", "ajp"), "ar"),
    **dict.fromkeys(("af", "fy", "li", "lb"), "nl"),
    **dict.fromkeys(("mr", "ne", "mai", "bho", "sa"), "hi"),
    **dict.fromkeys(("be", "uk", "bg", "mk"), "ru"),
    **dict.fromkeys(("wuu", "yue", "lzh"), "zh"),
    **dict.fromkeys(("sco", "en-gb"), "en"),
}
NAMES = {
    "ar": "Arabic", "cs": "Czech or Slovak", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch",
    "no": "Danish or Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian or one near it", "sh": "South Slavic", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def prose_of(text: str) -> str | None:
    """What of a text is prose and long enough to tell its language; None when it is not."""
    head = text[:_LOOKED_AT]
    if head.lstrip()[:1] in ("{", "[", "<") or len(_CODE.findall(head)) > 1:
        return None
    prose = _NO_PROSE.sub(" ", head)
    if len(_SIGNS.findall(prose)) >= LEAST_SIGNS:
        return prose
    # names and acronyms say nothing of the language around them
    words = [word for word in _LATIN_NAME.findall(prose) if len(word) == 1 or not word.isupper()]
    if len(words) < LEAST_WORDS or sum(map(len, words)) < LEAST_LETTERS:
        return None
    return " ".join(words)


def language_of(prose: str) -> str | None:
    """The language of prose as an ISO 639 code, languages hard to tell apart under one; None: not sure."""
    chances: dict[str, float] = defaultdict(float)
    for language, chance in _identifier()(prose)[:_CANDIDATES]:
        chances[_ALIKE.get(language, language)] += chance
    language, sure = max(chances.items(), key=lambda item: item[1])
    return language if sure >= SURE and language not in _UNTOLD else None


@functools.lru_cache(maxsize=1)
def _identifier() -> Callable[[str], list[tuple[str, float]]]:
    import numpy as np
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.nb_ptc = identifier.nb_ptc.astype(np.float32)  # half precision is slower to multiply
    return identifier.rank  # type: ignore[no-any-return]
