"""Examples that are longer than what is trained on whole."""

from __future__ import annotations

from luthier.audit.finding import Finding, Material, NotApplicableError


def find_truncation(material: Material) -> list[Finding]:
    """One finding per example; score is its tokens divided by `max_tokens`.

    Raises:
        NotApplicableError: no model, or no limit, was chosen yet.
    """
    if material.tokens is None or material.max_tokens is None:
        raise NotApplicableError("no model was given to count tokens with")
    findings = []
    for example in material.all:
        n = material.tokens(example)
        if n > material.max_tokens:
            findings.append(
                Finding(
                    check="truncation",
                    severity="error",
                    score=n / material.max_tokens,
                    message=f"{n} tokens, where {material.max_tokens} fit",
                    fix="shorten the input, or choose a model with a longer context",
                    examples=(example,),
                )
            )
    return findings
