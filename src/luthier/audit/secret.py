"""Keys and passwords in the texts.

Each kind has a marker that is cheap to look for before its pattern is tried. The prefixes are those
their issuers document for secret scanning.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from luthier.audit.finding import Finding, Material
from luthier.audit.personal_data import mask

LEAST_BITS_PER_CHARACTER = 3.0
_PATTERNS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("private key", "PRIVATE KEY", re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")),
    ("AWS key", "AKIA", re.compile(r"\bAKIA[0-9A-Z]{16}\b")),
    ("AWS key", "ASIA", re.compile(r"\bASIA[0-9A-Z]{16}\b")),
    ("GitHub token", "gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b")),
    ("GitHub token", "github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b")),
    ("GitLab token", "glpat-", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("API key", "sk-", re.compile(r"\bsk-(?:[A-Za-z]+-){0,3}[A-Za-z0-9_-]{20,}")),
    ("Stripe key", "k_live_", re.compile(r"\b[sr]k_live_[A-Za-z0-9]{16,}")),
    ("Slack token", "xox", re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}")),
    ("Google key", "AIza", re.compile(r"\bAIza[A-Za-z0-9_-]{35}")),
    ("Hugging Face token", "hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("npm token", "npm_", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("SendGrid key", "SG.", re.compile(r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}")),
    ("JSON web token", "eyJ", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")),
    (
        "password in an address",
        "://",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,80}:[^\s:/@]{6,80}@[\w.-]+"),
    ),
)
_ASSIGNED = re.compile(
    r"(?:api[_ -]?key|secret(?:[_ -]?key)?|access[_ -]?token|auth[_ -]?token|bearer)"
    r"[\"']?\s*(?:[:=]|\s)\s*[\"']?"
    r"(?P<value>[A-Za-z0-9/+_=-]{20,200})",
    re.IGNORECASE,
)
_ASSIGNMENTS = ("key", "secret", "token", "bearer")


def find_secrets(material: Material) -> list[Finding]:
    """One finding per example that holds any; score is how many distinct ones. What was found is masked."""
    findings = []
    for example in material.all:
        found = dict.fromkeys(hit for text in example.texts for hit in secrets(text))
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


def secrets(text: str) -> Iterator[tuple[str, str]]:
    """Keys and passwords in a text: (kind, the text of it). Placeholders like `sk-xxxx…` are passed over."""
    spans = []
    for kind, marker, pattern in _PATTERNS:
        if marker in text:
            for match in pattern.finditer(text):
                if kind == "private key" or bits_per_character(match.group()) >= LEAST_BITS_PER_CHARACTER:
                    spans.append(match.span())
                    yield kind, match.group()
    lowered = text.lower()
    if any(word in lowered for word in _ASSIGNMENTS):
        for match in _ASSIGNED.finditer(text):
            value, start = match["value"], match.start("value")
            random = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
            if any(low <= start < high for low, high in spans) or not random:
                continue
            if bits_per_character(value) >= LEAST_BITS_PER_CHARACTER + 0.5:
                yield "key", value


def bits_per_character(text: str) -> float:
    """Shannon entropy of the characters of a text, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
