"""The audit of more examples than can be held: one pass in parts, in bounded memory.

Checks of single examples see every example. What is said of all of them together comes from hashes and
counts of every example (`ledger`) where that can be, and otherwise from a sample of them, which is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

from luthier.audit.answer_tallies import (
    draft_copied_answers,
    draft_refusals,
    draft_unfinished_answers,
)
from luthier.audit.checks import (
    CHECKS,
    OF_ONE_EXAMPLE,
    OF_REQUESTS,
    Audit,
    Check,
    refuse_nothing_to_audit,
    run_checks,
    worst_first,
)
from luthier.audit.entry import Flag
from luthier.audit.finding import Finding, Material, NotApplicableError
from luthier.audit.inconsistent_answers import find_mixed_forms
from luthier.audit.kept import Kept, Sample
from luthier.audit.label_conflict import find_label_conflicts
from luthier.audit.ledger import Ledger
from luthier.audit.prompt_mismatch import find_wrapped_prompts
from luthier.audit.repeats import (
    Pending,
    draft_exact_duplicates,
    draft_judgement_conflicts,
    draft_label_conflicts,
)
from luthier.audit.sieve import OF_ONE, Sieve
from luthier.audit.tallies import (
    draft_class_imbalance,
    draft_inconsistent_answers,
    draft_prompt_mismatch,
    draft_too_few_examples,
)
from luthier.examples.answers import AnswerKind, kind_of_answers
from luthier.examples.example import Example
from luthier.examples.row import Problem
from luthier.examples.wording import normalise, own_system, request_text
from luthier.progress import Advance

PART_EXAMPLES = 1024
PARTS_AHEAD = 4  # that the second process may have before it
SAMPLE_EXAMPLES = 20_000
TEMPLATE_TOKENS, TURN_TOKENS = 1000, 32  # generous: what a chat template adds at most
Drafting = Callable[[], Iterator[Pending]]
LookUp = Callable[[Collection[int]], Mapping[int, Example]]


def audit_stream(
    examples: Iterable[Example | Problem],
    *,
    look_up: LookUp | None = None,
    part_examples: int = PART_EXAMPLES,
    sample: Sample | None = None,
    second_process: bool = False,
    advance: Advance | None = None,
    answer_kind: AnswerKind | None = None,
    test_share: float = 0.3,
    **options: Any,
) -> Audit:
    """Run every check without holding the examples; problems among them are passed over.

    A finding lists the first of its examples, and of each check the first findings are kept; all are counted.

    Args:
        examples: iterated twice, up to the last example that a finding names, unless `look_up` is given.
        look_up: from positions among the examples to these.
        part_examples: how many are checked at once.
        sample: takes up the examples that are looked at together; room for 20,000 when None.
        second_process: look at single examples in a process of its own (`Sieve`), with the same findings.
        advance: told the number of examples after each part.
        answer_kind, test_share, options: as for `audit_examples`.

    Raises:
        DataError: there are no examples, or none has an answer that should be given.
    """
    options = {"system": None, "tokens": None, "max_tokens": None, **options}
    options["special_tokens"] = tuple(options.get("special_tokens", ()))
    plan = Material(sides={}, answer_kind=answer_kind or "text", test_share=test_share, **options)
    seen = _Seen(plan, sample or Sample(SAMPLE_EXAMPLES), guess=answer_kind is None)
    stream = (item for item in examples if isinstance(item, Example))
    with Sieve(plan.special_tokens) if second_process else nullcontext() as sieve:
        while part := list(islice(stream, part_examples)):
            seen.add(part, sieve)
            if advance is not None:
                advance(len(part))
        seen.look_at_rest(sieve)
    return seen.finish(look_up or (lambda positions: _iterate_again(examples, positions)))


def _iterate_again(examples: Iterable[Example | Problem], positions: Collection[int]) -> dict[int, Example]:
    stream = (item for item in examples if isinstance(item, Example))
    wanted = set(positions)
    return {at: example for at, example in zip(range(max(wanted) + 1), stream, strict=False) if at in wanted}


class _Seen:
    """What was seen of the examples so far.

    Attributes:
        plan: what checks are given besides the examples.
        guess: whether the kind of the answers is to be guessed.
    """

    def __init__(self, plan: Material, sample: Sample, *, guess: bool) -> None:
        self.plan, self.guess = plan, guess
        self._kind = plan.answer_kind
        self._of_one = {name: CHECKS[name] if name in OF_ONE_EXAMPLE else own for name, own in OF_ONE.items()}
        self._waiting: deque[Material] = deque()
        self._sample, self._ledger, self._kept = sample, Ledger(), Kept()
        self._failed: dict[str, str] = {}
        self._skipped: dict[str, str] = {}
        self._ran: set[str] = set()
        self._file = ""

    def add(self, part: Sequence[Example], sieve: Sieve | None) -> None:
        """Check the next examples one by one, and remember what the other checks need.

        With a sieve the examples are checked when it has told which of them to look at, some parts later.
        """
        if self.guess and not len(self._ledger):
            self._kind = kind_of_answers([example for example in part if example.wanted])
        self._file = self._file or part[0].file
        material = replace(self.plan, sides={"all": part}, answer_kind=self._kind)
        if (tokens := material.tokens) is not None and material.max_tokens is not None:
            material = replace(material, tokens=_bounded(tokens, material.max_tokens))
        self._run({"truncation": CHECKS["truncation"]}, material)
        if sieve is None:
            self._run(self._of_one, material)
        else:
            sieve.put(part)
            self._waiting.append(material)
            if len(self._waiting) > PARTS_AHEAD:
                self._look_at_suspects(sieve)
        self._ledger.add(material)
        self._sample.add(part)

    def look_at_rest(self, sieve: Sieve | None) -> None:
        """Check the examples that wait for what the sieve tells."""
        while sieve is not None and self._waiting:
            self._look_at_suspects(sieve)

    def _look_at_suspects(self, sieve: Sieve) -> None:
        material, places = self._waiting.popleft(), sieve.get()
        if places is not None:
            material = replace(material, sides={"all": [material.all[place] for place in places]})
        self._run(self._of_one, material)

    def _run(self, checks: Mapping[str, Check], material: Material) -> None:
        outcome = run_checks(checks, material, texts=False)
        self._kept.add(outcome.findings)
        self._failed |= {name: why for name, why in outcome.failed if name not in self._failed}
        self._skipped |= dict(outcome.skipped)
        self._ran |= checks.keys() - dict(outcome.skipped).keys()

    def finish(self, look_up: LookUp) -> Audit:
        """The findings on everything that was added."""
        ledger, kept = self._ledger, self._kept
        refuse_nothing_to_audit(len(ledger), int(ledger.flags(Flag.WANTED).sum()), self._file)
        kind = ledger.answer_kind() if self.guess else self._kind
        texts = not ledger.flags(Flag.ASKED).any()
        self._skipped = {name: why for name, why in self._skipped.items() if name not in self._ran}
        whole = self._whole(kind)
        if texts:
            for name in OF_REQUESTS:
                kept.drop(name)
                self._skipped[name] = "the examples are plain text: nothing is asked"
            whole = {name: drafts for name, drafts in whole.items() if name not in OF_REQUESTS}
        self._add_whole(whole, look_up)
        sampled = self._look_at_sample(kind, set(whole), texts=texts)
        for name in self._failed:
            kept.drop(name)
            self._skipped.pop(name, None)
        findings = sorted((f for name in CHECKS for f in kept.findings(name)), key=worst_first)
        return Audit(
            tuple(findings),
            len(ledger),
            tuple((name, self._failed[name]) for name in CHECKS if name in self._failed),
            tuple((name, self._skipped[name]) for name in CHECKS if name in self._skipped),
            dict(kept.counts),
            sampled,
        )

    def _whole(self, kind: AnswerKind) -> dict[str, Drafting]:
        """Checks that look at all examples together, and need hashes and counts of them alone."""
        ledger, plan = self._ledger, self.plan
        return {
            "exact_duplicate": lambda: draft_exact_duplicates(ledger),
            "label_conflict": lambda: draft_label_conflicts(ledger, kind),
            "judgement_conflict": lambda: draft_judgement_conflicts(ledger),
            "class_imbalance": lambda: draft_class_imbalance(ledger, kind),
            "inconsistent_answers": lambda: draft_inconsistent_answers(ledger, kind),
            "prompt_mismatch": lambda: draft_prompt_mismatch(ledger, plan.system),
            "too_few_examples": lambda: draft_too_few_examples(ledger, plan.test_share),
            "unfinished_answer": lambda: draft_unfinished_answers(ledger, kind, self._sample.placed()),
            "refusal": lambda: draft_refusals(ledger, kind),
            "copied_answer": lambda: draft_copied_answers(ledger, kind),
        }

    def _add_whole(self, whole: Mapping[str, Drafting], look_up: LookUp) -> None:
        """Make the findings of these checks, those that are kept, with the examples that they name."""
        pending: list[Pending] = []
        for name, draft in whole.items():
            try:
                pending += (
                    one for one in draft() if one.severity is None or self._kept.reserve(name, one.severity)
                )
            except NotApplicableError as reason:
                self._kept.drop(name)
                self._skipped[name] = str(reason)
            except Exception as error:  # as in `run_checks`
                self._failed[name] = f"{type(error).__name__}: {error}"
        needs = {position for one in pending for position in one.needs}
        examples = look_up(needs) if needs else {}
        for one in pending:
            add = self._kept.add if one.severity is None else self._kept.fill
            add(one.make(examples))

    def _look_at_sample(self, kind: AnswerKind, whole: Collection[str], *, texts: bool) -> dict[str, int]:
        """Run the remaining checks, and parts of checks, on the sample; how many examples each looked at."""
        looked, total = self._sample.examples(), len(self._ledger)
        checks: dict[str, Check] = {
            name: check
            for name, check in CHECKS.items()
            if name not in OF_ONE_EXAMPLE and name not in self._of_one and name not in whole
        }
        checks |= {name: part for name, part in _OF_SAMPLE.items() if name in whole}
        material = replace(self.plan, sides={"all": looked}, answer_kind=kind)
        outcome = run_checks(checks, material, texts=texts)
        if len(looked) == total:
            self._kept.add(outcome.findings)
        else:
            told = f" (looked at {len(looked):,} of {total:,} examples)"
            self._kept.add(replace(f, message=f.message + told) for f in outcome.findings)
        self._failed |= dict(outcome.failed)
        self._skipped |= dict(outcome.skipped)
        ran = checks.keys() - self._failed.keys() - self._skipped.keys()
        return {name: len(looked) for name in CHECKS if name in ran and len(looked) < total}


def _reworded_conflicts(material: Material) -> list[Finding]:
    """Conflicts of requests that are not the same after normalisation; the others are found by hash."""
    return [
        finding
        for finding in find_label_conflicts(material)
        if len({_asked(example) for example in finding.examples}) > 1
    ]


def _asked(example: Example) -> tuple[str, str]:
    return normalise(own_system(example) or ""), request_text(example)


_OF_SAMPLE: dict[str, Check] = {  # of checks that were made for all examples, the part that was not
    "label_conflict": _reworded_conflicts,
    "inconsistent_answers": find_mixed_forms,
    "prompt_mismatch": find_wrapped_prompts,
}


def _bounded(tokens: Callable[[Example], int], most: int) -> Callable[[Example], int]:
    """Counts tokens where there may be more than `most`; else a bound: tokenizers make no more than bytes."""

    def count(example: Example) -> int:
        if example.tools:
            return tokens(example)
        texts = example.texts
        room = most - TEMPLATE_TOKENS - TURN_TOKENS * len(texts)
        if sum(map(len, texts)) <= room // 4 or sum(len(text.encode()) for text in texts) <= room:
            return most
        return tokens(example)

    return count
