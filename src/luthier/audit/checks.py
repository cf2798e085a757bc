"""The list of checks, and running them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.audit.class_imbalance import find_class_imbalance
from luthier.audit.copied_answer import find_copied_answers
from luthier.audit.empty_answer import find_empty_answers
from luthier.audit.encoding import find_encoding_faults
from luthier.audit.exact_duplicate import find_exact_duplicates
from luthier.audit.finding import Finding, Material, NotApplicableError, Severity
from luthier.audit.inconsistent_answers import find_inconsistent_answers
from luthier.audit.judgement_conflict import find_judgement_conflicts
from luthier.audit.label_conflict import find_label_conflicts
from luthier.audit.label_error import find_label_errors
from luthier.audit.language_mix import find_language_mix
from luthier.audit.leakage import find_leakage
from luthier.audit.length_outlier import find_length_outliers
from luthier.audit.near_duplicate import find_near_duplicate_clusters
from luthier.audit.personal_data import find_personal_data
from luthier.audit.prompt_mismatch import find_prompt_mismatch
from luthier.audit.refusal import find_refusals
from luthier.audit.schema_violation import find_schema_violations
from luthier.audit.secret import find_secrets
from luthier.audit.special_token import find_special_tokens
from luthier.audit.suite_index import SuiteIndex
from luthier.audit.suite_leakage import find_suite_leakage
from luthier.audit.synthetic_test import find_synthetic_test
from luthier.audit.too_few_examples import find_too_few_examples
from luthier.audit.tool_call import find_bad_calls
from luthier.audit.truncation import find_truncation
from luthier.audit.unfinished_answer import find_unfinished_answers
from luthier.errors import DataError
from luthier.examples.answers import ANSWER_KINDS, AnswerKind, kind_of_answers
from luthier.examples.example import Example

Check = Callable[[Material], list[Finding]]
CHECKS: dict[str, Check] = {
    "leakage": find_leakage,
    "suite_leakage": find_suite_leakage,
    "label_conflict": find_label_conflicts,
    "judgement_conflict": find_judgement_conflicts,
    "secret": find_secrets,
    "empty_answer": find_empty_answers,
    "unfinished_answer": find_unfinished_answers,
    "schema_violation": find_schema_violations,
    "tool_call": find_bad_calls,
    "label_error": find_label_errors,
    "special_token": find_special_tokens,
    "too_few_examples": find_too_few_examples,
    "prompt_mismatch": find_prompt_mismatch,
    "truncation": find_truncation,
    "exact_duplicate": find_exact_duplicates,
    "synthetic_test": find_synthetic_test,
    "near_duplicate": find_near_duplicate_clusters,
    "class_imbalance": find_class_imbalance,
    "inconsistent_answers": find_inconsistent_answers,
    "personal_data": find_personal_data,
    "refusal": find_refusals,
    "copied_answer": find_copied_answers,
    "encoding": find_encoding_faults,
    "language_mix": find_language_mix,
    "length_outlier": find_length_outliers,
}
OF_UNWANTED_TOO = (  # the others look at answers to give alone
    "leakage",
    "suite_leakage",
    "judgement_conflict",
    "secret",
    "special_token",
    "truncation",
    "exact_duplicate",
    "personal_data",
    "encoding",
)
OF_REQUESTS = (  # texts that nobody asked for have none
    "label_conflict",
    "label_error",
    "judgement_conflict",
    "too_few_examples",
    "prompt_mismatch",
    "class_imbalance",
    "inconsistent_answers",
    "empty_answer",
    "unfinished_answer",
    "schema_violation",
    "tool_call",
    "refusal",
    "copied_answer",
)
OF_ONE_EXAMPLE = (  # the same findings for parts of the examples as for all: large files are read in parts
    "secret",
    "special_token",
    "truncation",
    "personal_data",
    "empty_answer",
    "encoding",
)
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Audit:
    """The result of all checks.

    Attributes:
        findings: errors first, then warnings, then information.
        examples: how many were looked at.
        failed: check and reason, for checks that broke: neither passed nor found anything.
        skipped: check and reason, for checks with nothing to look at.
        counts: how many there are of each check and severity, where `findings` are the first ones only.
        sampled: how many examples a check looked at, where these are a sample.
    """

    findings: tuple[Finding, ...]
    examples: int
    failed: tuple[tuple[str, str], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    counts: Mapping[tuple[str, Severity], int] | None = None
    sampled: Mapping[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, int]:
        """Findings per check; a check that ran and found nothing has 0, one that did not run is absent."""
        counts = Counter(finding.check for finding in self.findings)
        if self.counts is not None:
            counts = Counter()
            for (name, _), count in self.counts.items():
                counts[name] += count
        absent = {name for name, _ in (*self.failed, *self.skipped)}
        return {name: counts[name] for name in CHECKS if name not in absent}

    def severities(self) -> dict[Severity, int]:
        """Findings per severity, the worst first."""
        if self.counts is None:
            counts = Counter(finding.severity for finding in self.findings)
            return {severity: counts[severity] for severity in _ORDER}
        return {
            severity: sum(n for (_, own), n in self.counts.items() if own == severity) for severity in _ORDER
        }

    def as_json(self) -> dict[str, Any]:
        """The content of `audit.json`."""
        return {
            "findings": [finding.as_json() for finding in self.findings],
            "summary": self.summary(),
            "severities": self.severities(),
            "examples": self.examples,
            "sampled": dict(self.sampled),
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
    schema: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    suites: SuiteIndex | None = None,
) -> Audit:
    """Run every check. A check that raises is reported in `failed`, never as passed.

    Args:
        examples: by side, or all of them under `all`.
        system: the recipe's system prompt.
        tokens, max_tokens: counts an example's tokens, and how many fit; without both, truncation is skipped.
        special_tokens: the tokenizer's, as text.
        answer_kind: guessed from the answers when None.
        test_share: share that will be held out when there is no `test` side yet.
        schema, labels: what answers must be, where somebody said; else what nearly all of them are.
        suites: the public suites (`suite_index.open_suites`); without them they are not looked for.

    Raises:
        DataError: there are no examples, or none has an answer that should be given.
    """
    everything = [example for side in examples.values() for example in side]
    if answer_kind is not None and answer_kind not in ANSWER_KINDS:
        raise ValueError(f"answer_kind must be one of {', '.join(ANSWER_KINDS)}, got {answer_kind!r}")
    wanted = {side: [example for example in own if example.wanted] for side, own in examples.items()}
    file = everything[0].file if everything else ""
    refuse_nothing_to_audit(len(everything), sum(map(len, wanted.values())), file)
    whole = Material(
        sides=examples,
        system=system,
        tokens=tokens,
        special_tokens=tuple(special_tokens),
        max_tokens=max_tokens,
        answer_kind=answer_kind or kind_of_answers([e for own in wanted.values() for e in own]),
        test_share=test_share,
        schema=schema,
        labels=tuple(labels),
        suites=suites,
    )
    outcome = run_checks(CHECKS, whole, texts=not any(example.request for example in everything))
    findings = sorted(outcome.findings, key=worst_first)
    return Audit(tuple(findings), len(everything), tuple(outcome.failed), tuple(outcome.skipped))


def refuse_nothing_to_audit(examples: int, wanted: int, file: str) -> None:
    """Refuse what has no example, or (`wanted`) none with an answer to give.

    Raises:
        DataError: as it says.
    """
    if not examples:
        raise DataError("there are no examples to audit", fix="give a file with at least one example")
    if not wanted:
        raise DataError(
            "every answer is marked as one not to give",
            where=file,
            fix="add answers that should be given: they are shown, compared with and asked for",
        )


@dataclass
class Outcome:
    """What checks found, and which of them broke or had nothing to look at, with the reason."""

    findings: list[Finding] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def run_checks(checks: Mapping[str, Check], whole: Material, *, texts: bool) -> Outcome:
    """Run checks on examples, some of which may be answers not to give; `texts`: nothing is asked in any."""
    judged = any(not example.wanted for example in whole.all)
    wanted = {side: [example for example in own if example.wanted] for side, own in whole.sides.items()}
    material = replace(whole, sides=wanted) if judged else whole  # what checks share is computed once
    outcome = Outcome()
    for name, check in checks.items():
        if texts and name in OF_REQUESTS:
            outcome.skipped.append((name, "the examples are plain text: nothing is asked"))
            continue
        try:
            outcome.findings += check(whole if name in OF_UNWANTED_TOO else material)
        except NotApplicableError as reason:
            outcome.skipped.append((name, str(reason)))
        except Exception as error:  # a broken check must not hide what the others found
            outcome.failed.append((name, f"{type(error).__name__}: {error}"))
    return outcome


def worst_first(finding: Finding) -> int:
    """Key to sort findings by."""
    return _ORDER[finding.severity]
