"""System prompts that differ between training and what will be sent."""

from __future__ import annotations

from luthier.audit.finding import Finding, Material, counted, shown
from luthier.examples.wording import own_system


def find_prompt_mismatch(material: Material) -> list[Finding]:
    """At most one finding; score is the share of the examples in the minority."""
    systems = [own_system(example) for example in material.all]
    own = [example for example, system in zip(material.all, systems, strict=True) if system is not None]
    bare = [example for example, system in zip(material.all, systems, strict=True) if system is None]
    if not own:
        return []
    other = [e for e, s in zip(material.all, systems, strict=True) if s is not None and s != material.system]
    minority = tuple(own if len(own) <= len(bare) else bare)
    share = len(minority) / len(material.all)
    if bare and material.system is None:
        message = f"{counted(len(own), 'example')} with a system prompt, {len(bare)} without"
        fix = "give all of them the one that will be sent, or set system: in the recipe for those without"
        return [Finding("prompt_mismatch", "warning", share, message, fix, minority)]
    if bare and other:
        message = (
            f"{counted(len(other), 'example')} with another system prompt than the recipe's, such as "
            f"{shown(own_system(other[0]) or '')}; the rest get the recipe's"
        )
        fix = "remove their own, or set system: to the same text"
        return [Finding("prompt_mismatch", "warning", share, message, fix, minority)]
    if not bare and material.system is not None and len(other) == len(own):
        message = "every example has a system prompt of its own, so the recipe's is never used"
        return [Finding("prompt_mismatch", "warning", 1.0, message, "remove system: from the recipe")]
    return []
