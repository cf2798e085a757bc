"""Keys and passwords in the texts.

Each kind has a marker that is cheap to look for before its pattern is tried. The prefixes are those
their issuers document for secret scanning.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator

from luthier.audit.finding import Finding, Material
from luthier.audit.personal_data import mask
from luthier.examples.example import Example

LEAST_BITS_PER_CHARACTER = 3.0
_PATTERNS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("private key", "PRIVATE KEY", re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")),
    ("AWS key", "AKIA", re.compile(r"\bAKIA[0-9A-Z]{16}\b(?<!EXAMPLE)")),
    ("AWS key", "ASIA", re.compile(r"\bASIA[0-9A-Z]{16}\b(?<!EXAMPLE)")),
    *(("GitHub token", f"gh{kind}_", re.compile(rf"\bgh{kind}_[A-Za-z0-9]{{36,255}}\b")) for kind in "pousr"),
    ("GitHub token", "github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b")),
    ("GitLab token", "glpat-", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("API key", "sk-", re.compile(r"\bsk-(?:[A-Za-z]+-){0,3}[A-Za-z0-9_-]{20,}")),
    ("Stripe key", "k_live_", re.compile(r"\b[sr]k_live_[A-Za-z0-9]{16,}")),
    ("Stripe key", "k_test_", re.compile(r"\b[sr]k_test_[A-Za-z0-9]{16,}")),
    ("Stripe key", "whsec_", re.compile(r"\bwhsec_[A-Za-z0-9+/]{32,}")),
    ("Slack token", "xox", re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}")),
    ("Slack token", "xapp-", re.compile(r"\bxapp-\d-[A-Za-z0-9-]{20,}")),
    ("webhook", "hooks.slack.com/", re.compile(r"\bhooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{20,}")),
    ("webhook", "/api/webhooks/", re.compile(r"\bdiscord(?:app)?\.com/api/webhooks/\d{15,}/[\w-]{50,}")),
    ("Google key", "GOCSPX-", re.compile(r"\bGOCSPX-[A-Za-z0-9_-]{28}")),
    ("Google key", "AIza", re.compile(r"\bAIza[A-Za-z0-9_-]{35}")),
    ("Hugging Face token", "hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("npm token", "npm_", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("PyPI token", "pypi-AgE", re.compile(r"\bpypi-AgE[A-Za-z0-9_-]{50,}")),
    ("Docker token", "dckr_pat_", re.compile(r"\bdckr_pat_[A-Za-z0-9_-]{20,}")),
    *(
        ("Shopify token", f"shp{kind}_", re.compile(rf"\bshp{kind}_[A-Fa-f0-9]{{32}}\b"))
        for kind in ("at", "ca", "pa", "ss")
    ),
    ("DigitalOcean token", "_v1_", re.compile(r"\bdo[por]_v1_[a-f0-9]{64}\b")),
    ("Databricks token", "dapi", re.compile(r"\bdapi[a-f0-9]{32}(?:-\d)?\b")),
    ("Groq key", "gsk_", re.compile(r"\bgsk_[A-Za-z0-9]{40,}")),
    ("Replicate token", "r8_", re.compile(r"\br8_[A-Za-z0-9]{37}\b")),
    ("Notion token", "ntn_", re.compile(r"\bntn_[A-Za-z0-9]{40,}")),
    ("Linear key", "lin_api_", re.compile(r"\blin_api_[A-Za-z0-9]{32,}")),
    ("Grafana token", "glsa_", re.compile(r"\bglsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}\b")),
    ("Vault token", "hvs.", re.compile(r"\bhvs\.[A-Za-z0-9_-]{24,}")),
    ("Mailgun key", "key-", re.compile(r"\bkey-[a-f0-9]{32}\b")),
    ("New Relic key", "NRAK-", re.compile(r"\bNRAK-[A-Z0-9]{27}\b")),
    ("Twilio key", "SK", re.compile(r"\bSK[0-9a-f]{32}\b")),
    ("Telegram token", ":AA", re.compile(r"\b\d{8,10}:AA[A-Za-z0-9_-]{32,34}(?![\w-])")),
    ("age key", "AGE-SECRET-KEY-1", re.compile(r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}\b")),
    ("SendGrid key", "SG.", re.compile(r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}")),
    ("JSON web token", "eyJ", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")),
    (
        "password in an address",
        "://",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,80}:[^\s:/@]{6,80}@[\w.-]+"),
    ),
)
# Most markers have an underscore or a dash, and most texts have neither.
_LOOKED_FOR = {
    (underscore, dash): tuple(
        row for row in _PATTERNS if (underscore or "_" not in row[1]) and (dash or "-" not in row[1])
    )
    for underscore in (False, True)
    for dash in (False, True)
}
_ASSIGNED = re.compile(
    r"(?:(?:api|secret|access|auth|private|client|account|signing|encryption|refresh|session)"
    r"[_ -]?(?:access[_ -]?)?"
    r"(?:key|token|secret)|bearer)[\"']?\s*(?:[:=]|\s)\s*[\"']?(?P<value>[A-Za-z0-9/+_.=-]{20,200})"
    r"|(?:secret|token)[\"']?\s*[:=]\s*[\"']?(?P<plain>[A-Za-z0-9/+_.=-]{20,200})"
    r"|(?:password|passwort|passwd|pass|pwd|passphrase|contraseña)[\"']?\s*[:=]\s*[\"']?"
    r"(?P<password>[^\s\"'<>{}()\[\],;*/$][^\s\"'<>{}()\[\],;*]{5,63})",
    re.IGNORECASE,
)
_ASSIGNMENTS = (
    *(
        ("key", "ap"),
        ("key", "se"),
        ("key", "ac"),
        ("key", "au"),
        ("key", "pri"),
        ("key", "cli"),
        ("key", "sig"),
    ),
    *(("secret", ""), ("token", ""), ("bearer", ""), ("pass", ""), ("pwd", ""), ("contraseña", "")),
)
_NAMES = tuple(dict.fromkeys(name for name, _ in _ASSIGNMENTS))
_NAMED = re.compile(  # what every match of `_ASSIGNED` has, in folded case: a fraction of its time
    r"(?:key|token|secret|bearer)[\"']?\s*(?:[:=]|\s)\s*[\"']?[a-z0-9/+_.=-]{20}"
    r"|(?:pass(?:wor[dt]|wd|phrase)?|pwd|contraseña)[\"']?\s*[:=]"
)
LEAST_LENGTH_MARKED = 15  # of what any pattern matches, private keys apart: these alone have spaces
LEAST_LENGTH = 20  # of a value that a space separates from its name
_MARKERS = tuple(dict.fromkeys(marker.encode() for _, marker, _ in _PATTERNS))
_LONG = b"x" * LEAST_LENGTH_MARKED
_WORDS = bytes(ord(" ") if chr(byte).isspace() and byte < 128 else ord("x") for byte in range(256))
_STANDS_FOR = re.compile(
    r"your|example|changeme|change_me|placeholder|dummy|xxxx|1234567|insert|replace|redacted|^env\b|environ",
    re.IGNORECASE,
)
_HEX = re.compile(r"[0-9a-f]{32,}|[0-9A-F]{32,}")
_NO_PASSWORDS = frozenset(("password", "passwd", "secret", "passwort", "123456"))
HEX_BITS = 3.0  # per character: 32 random hexadecimal digits have 3.0 and more


def find_secrets(material: Material) -> list[Finding]:
    """One finding per example that holds any; score is how many distinct ones. What was found is masked."""
    findings = []
    for example, said, joined in zip(material.all, material.texts, material.joined_texts, strict=True):
        texts = [*said, offered(example)] if example.tools else said  # the model is shown them
        if not _may_hold("\n".join(texts) if example.tools else joined):
            continue
        found = dict.fromkeys(hit for text in texts for hit in secrets(text))
        if found:
            listed = ", ".join(f"{kind} {mask(text)}" for kind, text in list(found)[:3])
            findings.append(
                Finding(
                    check="secret",
                    severity="error",
                    score=float(len(found)),
                    message=f"holds {listed}",
                    fix="revoke it where it is valid, and replace it by a placeholder",
                    examples=(example,),
                )
            )
    return findings


def offered(example: Example) -> str:
    """The tools on offer, as JSON."""
    return json.dumps(example.tools, ensure_ascii=False)


def secrets(text: str) -> Iterator[tuple[str, str]]:
    """Keys and passwords in a text: (kind, the text of it). Placeholders like `sk-xxxx…` are passed over."""
    spans = []
    for kind, marker, pattern in _LOOKED_FOR["_" in text, "-" in text]:
        if marker in text:
            for match in pattern.finditer(text):
                if kind == "password in an address" and _is_no_password(match.group()):
                    continue
                if kind == "private key" or bits_per_character(match.group()) >= LEAST_BITS_PER_CHARACTER:
                    spans.append(match.span())
                    yield kind, match.group()
    if _may_assign(text, long=True):
        for match in _ASSIGNED.finditer(text):
            name = match.lastgroup or ""
            start, value = match.start(name), match[name]
            if any(low <= start < high for low, high in spans) or _STANDS_FOR.search(value):
                continue
            if name == "password":
                if _is_password(value):
                    yield "password", value
            elif _is_random(value.rstrip(".")):
                yield "key", value.rstrip(".")


def _may_hold(text: str) -> bool:
    """A quick look that few texts pass: at long words, and at what is named."""
    data = text.encode("utf-8", "surrogatepass")
    long = _long_words(data, data.translate(_WORDS))  # in bytes no word is shorter than in characters
    if long:
        joined = b" ".join(long)
        if any([marker in joined for marker in _MARKERS]):  # noqa: C419 a list takes half the time
            return True
    return _may_assign(text, long=max(map(len, long), default=0) >= LEAST_LENGTH) or "PRIVATE KEY" in text


def _long_words(data: bytes, words: bytes) -> list[bytes]:
    """The words that are long enough for a marked secret; in `words` every sign of theirs is an x."""
    found = []
    at = words.find(_LONG)
    while at >= 0:
        end = words.find(b" ", at)
        end = len(words) if end < 0 else end
        found.append(data[at:end])
        at = words.find(_LONG, end)
    return found


def _may_assign(text: str, *, long: bool) -> bool:
    """A quick look: what is secret only by its name has a digit, and is long or follows `:` or `=`."""
    if not long and ":" not in text and "=" not in text:
        return False
    folded = text.casefold()
    if not any([name in folded for name in _NAMES]):  # noqa: C419 a list takes half the time
        return False
    if text.isascii() and not any([digit in text for digit in "0123456789"]):  # noqa: C419 a list takes half the time
        return False
    paired = any([one in folded and other in folded for one, other in _ASSIGNMENTS])  # noqa: C419 a list takes half the time
    return paired and _NAMED.search(folded) is not None


def _is_no_password(address: str) -> bool:
    said = address.rpartition("@")[0].rpartition(":")[2]
    return said.lower() in _NO_PASSWORDS or _STANDS_FOR.search(said) is not None


def _is_password(value: str) -> bool:
    """Letters with digits or marks among them: `required` and `2024-01-01` are none."""
    plain = value.rstrip(".!?:")
    return any(c.isalpha() for c in plain) and any(c.isdigit() for c in plain) and len(set(plain)) > 4


def _is_random(value: str) -> bool:
    if not (any(c.isdigit() for c in value) and any(c.isalpha() for c in value)):
        return False
    least = HEX_BITS if _HEX.fullmatch(value) else LEAST_BITS_PER_CHARACTER + 0.5
    return bits_per_character(value) >= least


def bits_per_character(text: str) -> float:
    """Shannon entropy of the characters of a text, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
