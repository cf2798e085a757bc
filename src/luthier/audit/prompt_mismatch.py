"""Prompts that differ between training and what will be sent.

System prompts that some examples have and others lack; texts that begin with the token that the template
puts in front itself, so that it stands there twice; inputs wrapped in another template's words; and a line
that opens nearly every input, but not all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from luthier.audit.finding import Finding, Material, counted, shown
from luthier.examples.example import Example
from luthier.examples.wording import own_system

_BEGINS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|begin▁of▁sentence|>", "[CLS]")
_WRAPPED = re.compile(
    r"(?m)^\s{0,3}(?:#{2,3} ?(?:Instruction|Input|Response|System|User|Human|Assistant)s?:?[ \t]*$"
    r"|(?:Human|Assistant|USER|ASSISTANT|SYSTEM):[ \t]?(?=\S|$))"
)
_NEARLY_ALL = 0.95
_LEAST_EXAMPLES = 40
_OPENING_WORDS = 3


def find_prompt_mismatch(material: Material) -> list[Finding]:
    """At most one finding of each kind; score is the share of the examples that it is about."""
    return [*_systems(material), *find_wrapped_prompts(material)]


def find_wrapped_prompts(material: Material) -> list[Finding]:
    """Of `find_prompt_mismatch` all but system prompts."""
    return [*_doubled_begins(material), *_wrapped(material), *_openings(material)]


def _systems(material: Material) -> list[Finding]:
    systems = [own_system(example) for example in material.all]
    own = [example for example, system in zip(material.all, systems, strict=True) if system is not None]
    bare = [example for example, system in zip(material.all, systems, strict=True) if system is None]
    other = [e for e, s in zip(material.all, systems, strict=True) if s is not None and s != material.system]
    such = (own_system(other[0]) or "") if other else ""
    minority = own if len(own) <= len(bare) else bare
    return system_mismatch(material.system, (len(own), len(bare), len(other)), such, minority)


def system_mismatch(
    system: str | None, counts: tuple[int, int, int], such: str, minority: Sequence[Example]
) -> list[Finding]:
    """What follows from the counts.

    Args:
        system: the recipe's.
        counts: examples with a system prompt of their own, without, and with another than the recipe's.
        such: the first other system prompt.
        minority: those of the first two that are fewer, to be shown.
    """
    own, bare, other = counts
    if not own:
        return []
    members = tuple(minority)
    share = min(own, bare) / (own + bare)
    if bare and system is None:
        message = f"{counted(own, 'example')} with a system prompt, {bare} without"
        fix = "give all of them the one that will be sent, or set system: in the recipe for those without"
        return [Finding("prompt_mismatch", "warning", share, message, fix, members)]
    if bare and other:
        message = (
            f"{counted(other, 'example')} with another system prompt than the recipe's, such as "
            f"{shown(such)}; the rest get the recipe's"
        )
        fix = "remove their own, or set system: to the same text"
        return [Finding("prompt_mismatch", "warning", share, message, fix, members)]
    if not bare and system is not None and other == own:
        message = "every example has a system prompt of its own, so the recipe's is never used"
        return [Finding("prompt_mismatch", "warning", 1.0, message, "remove system: from the recipe")]
    return []


def _doubled_begins(material: Material) -> list[Finding]:
    begins = (*_BEGINS, *(token for token in material.special_tokens if _is_begin(token)))
    found = [example for example in material.all if example.messages[0].content.lstrip().startswith(begins)]
    if not found:
        return []
    text = found[0].messages[0].content.lstrip()
    token = next(begin for begin in begins if text.startswith(begin))
    message = (
        f"{counted(len(found), 'example')} whose text begins with {token!r}, which templates put there too"
    )
    fix = "take it out: a doubled token at the start is never seen at inference"
    share = len(found) / len(material.all)
    return [Finding("prompt_mismatch", "error", share, message, fix, tuple(found))]


def _is_begin(token: str) -> bool:
    """Whether a special token begins texts, by its name; `<|im_start|>` begins turns."""
    return bool(
        re.search(r"(?<![a-zA-Z])bos(?![a-zA-Z])|begin.?of.?(?:text|sentence|document)|startoftext", token)
    )


def _wrapped(material: Material) -> list[Finding]:
    found = [
        e for e in material.all if any(_WRAPPED.search(m.content) for m in e.request if m.role == "user")
    ]
    if not found:
        return []
    share = len(found) / len(material.all)
    line = next(match for m in found[0].request if (match := _WRAPPED.search(m.content))).group().strip()
    every = len(found) == len(material.all)
    return [
        Finding(
            check="prompt_mismatch",
            severity="info" if every else "warning",
            score=share,
            message=f"{'every input' if every else counted(len(found), 'input')} wrapped in another "
            f"template's words, such as {shown(line, 30)}",
            fix="take them out, since the model's own template says who speaks"
            + ("; or send them at inference too" if every else ""),
            examples=() if every else tuple(found),
        )
    ]


def _openings(material: Material) -> list[Finding]:
    """Inputs without the words that open nearly all others."""
    asked = [example for example in material.all if example.request]
    if len(asked) < _LEAST_EXAMPLES:
        return []
    opening, count = Counter(map(_opening, asked)).most_common(1)[0]
    share = 1 - count / len(asked)
    if not 0 < share <= 1 - _NEARLY_ALL or len(opening) < _OPENING_WORDS:
        return []
    members = tuple(example for example in asked if _opening(example) != opening)
    message = (
        f"{counted(len(members), 'input')} without the words {shown(' '.join(opening), 50)}, "
        f"which open the other {1 - share:.1%}"
    )
    fix = "give all inputs the same instruction, the one that will be sent"
    return [Finding("prompt_mismatch", "warning", share, message, fix, members)]


def _opening(example: Example) -> tuple[str, ...]:
    return tuple(example.request[-1].content.split(None, _OPENING_WORDS + 2)[: _OPENING_WORDS + 1])
