"""The six questions to ask before fine-tuning, each answered from what this run measured."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.card import numbers
from luthier.card.view import View

DOUBTS_ABOUT_THE_TASK = ("label_conflict", "inconsistent_answers", "class_imbalance")
DOUBTS_ABOUT_THE_TEST = ("leakage",)


@dataclass(frozen=True)
class Answer:
    """A question and its answer as sentences; a sentence says `not measured` where the run is silent."""

    question: str
    sentences: list[str]


def answer_questions(view: View) -> list[Answer]:
    """All six, in order."""
    return [
        Answer("Is the task narrow and repeatable?", _task(view)),
        Answer("Are there enough good, representative examples?", _examples(view)),
        Answer("Would prompting or retrieval do?", _alternatives(view)),
        Answer("What is the metric, and was it held out?", _metric(view)),
        Answer("What happens when the model is confident and wrong?", _confidence(view)),
        Answer("Are the data and the limits documented?", _documents(view)),
    ]


def _task(view: View) -> list[str]:
    said = []
    if view.grader:
        said.append(f"Answers are scored by rule: {view.grader} ({view.metric}).")
    scored = [c for c in view.candidates if c.score.value is not None]
    best = max(scored, key=lambda c: c.score.value or 0.0, default=None)
    if best is not None:
        said.append(f"The best candidate, {best.name}, scores {numbers.percent(best.score.value)}.")
    return [*said, _findings(view, DOUBTS_ABOUT_THE_TASK, "how consistent the examples are")]


def _examples(view: View) -> list[str]:
    said = []
    if view.data and any(n is not None for _, n, _ in view.data.sides):
        sizes = ", ".join(f"{numbers.count(n)} {name}" for name, n, _ in view.data.sides)
        said.append(f"Examples: {sizes}.")
    else:
        said.append("How many examples there were: not measured.")
    if view.audit:
        found = {s: sum(len(group) for _, group in checks) for s, checks in view.audit.by_severity()}
        counts = [
            f"{numbers.count(n, severity)}"
            for severity, n in found.items()
            if severity in ("error", "warning")
        ]
        said.append(f"The audit reports {' and '.join(counts) if counts else 'no error and no warning'}.")
    else:
        said.append("Their quality: not measured.")
    if view.detectable is None:
        said.append("The smallest difference the test set can detect: not measured.")
    else:
        least = numbers.fixed(view.detectable, 1, scale=100)
        said.append(f"The test set can detect differences from {least} points.")
    return [*said, "Whether they represent real use cannot be measured from the files."]


def _alternatives(view: View) -> list[str]:
    other, gain = view.alternative, view.gain
    if other is None:
        return ["Not measured: no alternative to tuning was scored."]
    score = numbers.with_interval(other.score, "percent")
    said = [f"The best alternative is {other.name}: {score}."]
    if gain is None or gain.difference.value is None:
        said.append("The tuned model was not compared with it: not measured.")
    else:
        p = numbers.probability(gain.p if gain.p_adjusted is None else gain.p_adjusted)
        said.append(f"Tuned minus {other.name}: {numbers.with_interval(gain.difference, 'points')}, {p}.")
    tuned = view.candidate("tuned")
    if tuned and tuned.prompt_tokens is not None and other.prompt_tokens is not None:
        tokens = [numbers.count(c.prompt_tokens, "prompt token") for c in (tuned, other)]
        said.append(f"A request costs {tokens[0]} tuned and {tokens[1]} with {other.name}.")
    absent = [name for name in ("prompt", "few_shot", "retrieval") if view.candidate(name) is None]
    return [*said, f"Not measured: {', '.join(absent)}."] if absent else said


def _metric(view: View) -> list[str]:
    if not view.candidates:
        return ["Not measured: this record holds no scores."]
    n = max((c.n for c in view.candidates if c.n is not None), default=None)
    said = [f"The metric is {view.metric}, on {numbers.count(n, 'held-out example')}."]
    read = [c for c in view.candidates if c.perplexity.value is not None]
    if read:
        each = (f"{c.name} {numbers.with_interval(c.perplexity, '')}" for c in read)
        said.append(f"Perplexity over all their tokens, lower is better: {', '.join(each)}.")
    said.append(
        f"Split: {view.data.method}."
        if view.data and view.data.method
        else "How they were split: not recorded."
    )
    return [*said, _findings(view, DOUBTS_ABOUT_THE_TEST, "leakage between training and test")]


def _confidence(view: View) -> list[str]:
    found = view.confidence
    if found is None or found.n is None:
        return ["Not measured: no confidence was recorded with the answers."]
    if found.threshold is None:
        return [f"{numbers.count(found.n, 'answer')} of {found.candidate} counted as confident and wrong."]
    share = f" ({numbers.percent(found.share)})" if found.share is not None else ""
    above = f"with a confidence of at least {numbers.percent(found.threshold)}"
    wrong = numbers.count(found.n, "wrong answer")
    many = f"{wrong} of {found.candidate} came"
    among = f"{wrong} among the {found.of} answers of {found.candidate} that came"
    return [
        f"{many if found.of is None else among} {above}{share}.",
        "Nothing in the answer itself warns of them.",
    ]


def _documents(view: View) -> list[str]:
    sources = view.data.sources if view.data else []
    with_hash = sum(1 for source in sources if source.sha256)
    said = [
        f"{numbers.count(with_hash, 'source file')} recorded with sha256, and how they were split."
        if with_hash
        else "Where the examples came from: not recorded."
    ]
    return [
        *said,
        *_probed(view),
        f"What was not measured is listed below: {numbers.count(len(view.missing), 'item')}.",
    ]


def _probed(view: View) -> list[str]:
    """What the probes found, the bad first."""
    order = ("worse", "failed", "not_powered", "within_margin")
    ranked = sorted(
        view.probes.items(), key=lambda item: order.index(item[1].finding) if item[1].finding in order else 1
    )
    found = [f"{_plain(name)} ({probe.plain_finding})" for name, probe in ranked]
    return [f"Probed: {', '.join(found)}."] if found else ["Nothing was probed."]


def _findings(view: View, checks: tuple[str, ...], topic: str) -> str:
    """What the audit found among these checks; a check that did not run is not a check that passed."""
    if view.audit is None:
        return f"The audit was not run; {topic}: not measured."
    counts = {name: sum(finding.check == name for finding in view.audit.findings) for name in checks}
    found = [f"{_plain(name)} ({n})" for name, n in counts.items() if n]
    clean = [_plain(name) for name, n in counts.items() if not n and name in view.audit.clean]
    silent = [_plain(name) for name, n in counts.items() if not n and name not in view.audit.clean]
    said = [f"The audit found {', '.join(found)}."] if found else []
    said += [f"Looked for and not found: {', '.join(clean)}."] if clean else []
    said += [f"Not measured: {', '.join(silent)}."] if silent else []
    return " ".join(said)


def _plain(name: str) -> str:
    return name.replace("_", " ")
