"""Text that spells a special token or the markup of a chat template.

A tokenizer turns such text into the token itself: a turn ends in the middle of an answer, or a
second system prompt opens in a user's message.
"""

from __future__ import annotations

from luthier.audit.finding import Finding, Material

_MARKUP = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
    "<<SYS>>", "<</SYS>>", "<|user|>", "<|assistant|>", "<|system|>",
)  # fmt: skip


def find_special_tokens(material: Material) -> list[Finding]:
    """One finding per example: an error for the tokenizer's tokens, a warning for other templates' markup.

    Score is how often they occur.
    """
    own = {token for token in material.special_tokens if token.strip()}
    markers = sorted({*own, *_MARKUP}, key=lambda marker: (-len(marker), marker))
    findings = []
    beginnings = {marker[0] for marker in markers}
    for example, text in zip(material.all, material.joined_texts, strict=True):
        if not any([character in text for character in beginnings]):  # noqa: C419 a list takes half the time
            continue
        found = [marker for marker in markers if marker in text]
        if found:
            severe = bool(own & set(found))
            whose = "the tokenizer's special" if severe else "another template's"
            findings.append(
                Finding(
                    check="special_token",
                    severity="error" if severe else "warning",
                    score=float(sum(text.count(marker) for marker in found)),
                    message=f"the text spells {whose} tokens {', '.join(found[:3])}",
                    fix="remove them; Luthier adds the template itself",
                    examples=(example,),
                )
            )
    return findings
