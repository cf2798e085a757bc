"""The list of checks, and running them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.audit.class_imbalance import find_class_imbalance
from luthier.audit.exact_duplicate import find_exact_duplicates
from luthier.audit.finding import Finding, Material, NotApplicableError
from luthier.audit.inconsistent_answers import find_inconsistent_answers
from luthier.audit.judgement_conflict import find_judgement_conflicts
from luthier.audit.label_conflict import find_label_conflicts
from luthier.audit.leakage import find_leakage
from luthier.audit.near_duplicate import find_near_duplicate_clusters
from luthier.audit.personal_data import find_personal_data
from luthier.audit.prompt_mismatch import find_prompt_mismatch
from luthier.audit.secret import find_secrets
from luthier.audit.special_token import find_special_tokens
from luthier.audit.too_few_examples import find_too_few_examples
from luthier.audit.truncation import find_truncation
from luthier.errors import DataError
from luthier.examples.answers import ANSWER_KINDS, AnswerKind, kind_of_answers
from luthier.examples.example import Example

CHECKS: dict[str, Callable[[Material], list[Finding]]] = {
    "leakage": find_leakage,
    "label_conflict": find_label_conflicts,
    "judgement_conflict": find_judgement_conflicts,
    "secret": find_secrets,
    "special_token": find_special_tokens,
    "too_few_examples": find_too_few_examples,
    "prompt_mismatch": find_prompt_mismatch,
    "truncation": find_truncation,
    "exact_duplicate": find_exact_duplicates,
    "near_duplicate": find_near_duplicate_clusters,
    "class_imbalance": find_class_imbalance,
    "inconsistent_answers": find_inconsistent_answers,
    "personal_data": find_personal_data,
}
OF_UNWANTED_TOO = (  # the others look at answers to give alone
    "leakage",
    "judgement_conflict",
    "secret",
    "special_token",
    "truncation",
    "exact_duplicate",
    "personal_data",
)
OF_REQUESTS = (  # texts that nobody asked for have none
    "label_conflict",
    "judgement_conflict",
    "too_few_examples",
    "prompt_mismatch",
    "class_imbalance",
    "inconsistent_answers",
)
_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Audit:
    """The result of all checks.

    Attributes:
        findings: errors first, then warnings, then information.
        examples: how many were looked at.
        failed: check and reason, for checks that broke: neither passed nor found anything.
        skipped: check and reason, for checks with nothing to look at.
    """

    findings: tuple[Finding, ...]
    examples: int
    failed: tuple[tuple[str, str], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def summary(self) -> dict[str, int]:
        """Findings per check; a check that ran and found nothing has 0, one that did not run is absent."""
        counts = Counter(finding.check for finding in self.findings)
        absent = {name for name, _ in (*self.failed, *self.skipped)}
        return {name: counts[name] for name in CHECKS if name not in absent}

    def as_json(self) -> dict[str, Any]:
        """The content of `audit.json`."""
        return {
            "findings": [finding.as_json() for finding in self.findings],
            "summary": self.summary(),
            "examples": self.examples,
            "failed": [{"check": name, "reason": reason} for name, reason in self.failed],
            "skipped": [{"check": name, "reason": reason} for name, reason in self.skipped],
        }


def audit_examples(
    examples: Mapping[str, Sequence[Example]],
    *,
    system: str | None = None,
    tokens: Callable[[Example], int] | None = None,
    special_tokens: Sequence[str] = (),
    max_tokens: int | None = None,
    answer_kind: AnswerKind | None = None,
    test_share: float = 0.3,
) -> Audit:
    """Run every check. A check that raises is reported in `failed`, never as passed.

    Args:
        examples: by side, or all of them under `all`.
        system: the recipe's system prompt.
        tokens, max_tokens: counts an example's tokens, and how many fit; without both, truncation is skipped.
        special_tokens: the tokenizer's, as text.
        answer_kind: guessed from the answers when None.
        test_share: share that will be held out when there is no `test` side yet.

    Raises:
        DataError: there are no examples, or none has an answer that should be given.
    """
    everything = [example for side in examples.values() for example in side]
    if not everything:
        raise DataError("there are no examples to audit", fix="give a file with at least one example")
    if answer_kind is not None and answer_kind not in ANSWER_KINDS:
        raise ValueError(f"answer_kind must be one of {', '.join(ANSWER_KINDS)}, got {answer_kind!r}")
    wanted = {side: [example for example in own if example.wanted] for side, own in examples.items()}
    if not any(wanted.values()):
        raise DataError(
            "every answer is marked as one not to give",
            where=everything[0].file,
            fix="add answers that should be given: they are shown, compared with and asked for",
        )
    whole = Material(
        sides=examples,
        system=system,
        tokens=tokens,
        special_tokens=tuple(special_tokens),
        max_tokens=max_tokens,
        answer_kind=answer_kind or kind_of_answers([e for own in wanted.values() for e in own]),
        test_share=test_share,
    )
    judged = any(not example.wanted for example in everything)
    material = replace(whole, sides=wanted) if judged else whole  # what checks share is computed once
    findings: list[Finding] = []
    failed: list[tuple[str, str]] = []
    skipped: list[tuple[str, str]] = []
    texts = not any(example.request for example in everything)
    for name, check in CHECKS.items():
        if texts and name in OF_REQUESTS:
            skipped.append((name, "the examples are plain text: nothing is asked"))
            continue
        try:
            findings += check(whole if name in OF_UNWANTED_TOO else material)
        except NotApplicableError as reason:
            skipped.append((name, str(reason)))
        except Exception as error:  # a broken check must not hide what the others found
            failed.append((name, f"{type(error).__name__}: {error}"))
    findings.sort(key=lambda finding: _ORDER[finding.severity])
    return Audit(tuple(findings), len(everything), tuple(failed), tuple(skipped))
