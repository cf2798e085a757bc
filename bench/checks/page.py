"""docs/checks.md: what the checks find of planted faults, and what they cannot see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.checks.rates import Rates, Tally, share
from bench.checks.rewording import HEAVY
from bench.checks.texts import HALVES, NATURAL, text_sets
from bench.machine import describe_machine
from bench.report import table

if TYPE_CHECKING:
    from bench.checks.command import Outcome

GOAL = 0.9
PARTS = {
    "exact_duplicate": "Copies",
    "near_duplicate": "Near-duplicates",
    "leakage": "Leakage from test to train",
    "label_conflict": "Conflicts",
    "suite_leakage": "Items of public suites in the training data",
    "secret": "Secrets",
    "personal_data": "Personal data",
}
WHAT = {
    "exact_duplicate": (
        "Copies with other capitals, spaces and sentence marks, same answer. Texts that differ in a "
        "number, a word, a negation or a letter, with the same answer, must not be called copies."
    ),
    "near_duplicate": (
        "One text said twice, from slight changes to heavy ones. Flagged means: a finding names both. "
        "What must be let pass: the same text with another number, with another word that matters (texts "
        "of up to 15 words), with a negation; and questions of one form about different things."
    ),
    "leakage": (
        "A third of the texts is the test. Reworded copies of some of its rows are put into train, and "
        "texts that only look like others of its rows. Flagged means: a finding names both rows."
    ),
    "label_conflict": (
        "The same request with another answer. The look-alikes have another answer too, and rightly so."
    ),
    "suite_leakage": (
        "Texts of the suites asset, of 12 words or more, planted in training data among requests of our "
        "own. `reworded` is out of reach of a check that looks for runs of words."
    ),
    "secret": (
        "Keys made up by the forms that their issuers publish, put between two words of a real text. What "
        "must be let pass: hashes, ids, dates, order numbers, versions, amounts, placeholders, talk of "
        "passwords, and the real texts as they are."
    ),
    "personal_data": (
        "Numbers with right check digits, put between two words of a real text (not beside a number). "
        "What must be let pass is as for secrets, and the real texts as they are. What is found in those "
        "counts as wrong here and is right: read one by one, it is mail addresses of companies in privacy "
        "clauses."
    ),
}
CANNOT_SEE = """## What the checks cannot see

- A request in wholly other words. There is no model of meaning in `near_duplicate` and `leakage`,
  on purpose: they run on 100,000 texts in seconds on one core. One synonym in a short question is
  found or not by how rare its word is in the file; with two or three synonyms most short questions
  are missed.
- Whether one changed word of a longer text changes what is asked. A rare word of a short text does;
  a common one, or one of twenty words, is taken for a rewording. So is a name that was exchanged in
  a long story. Such pairs are findings of information only, and stay on one side of a split.
- Negation by anything but a word for it (`unlike`, `hardly`); numbers in words above twenty or not
  in English.
- Passwords without a digit; keys without a known form and without a name before them; keys split
  over lines.
- Names, streets, dates of birth, accounts of countries without IBAN; phone numbers of nine digits
  or more that are neither written like one nor called one.
- Wrong labels where a linear model on words cannot tell the labels apart: there the check says so,
  and judges none.
- These are rules of rewording and generators of our own, and so are the lists of courtesies in the
  check; people reword otherwise."""
LIBRARIES = """## Libraries that were considered

- cleanlab 2.9.0 (Apache-2.0): compared with above; this study alone needs it (`pip install
  cleanlab`).
- phonenumbers 9.0.43 (Apache-2.0): needs to be told the country of every national number, and a
  text does not tell.
- python-stdnum 2.2 (LGPL): its check digits that are needed here, Luhn and ISO 7064, are two
  functions of a few lines.
- detect-secrets 1.5.0 (Apache-2.0): made for code, reads files line by line through plugins, and
  knows no personal data."""


def write_page(outcomes: Sequence[Outcome]) -> str:
    """The whole document."""
    facts = describe_machine()
    names = {half: ", ".join(given.name for given in text_sets(half)) for half in HALVES}
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    parts = [
        "# The checks, measured",
        "```\npython -m bench checks\n```",
        "Faults are planted in real texts of public suites (the `suites` asset); counted is what the "
        "checks of `luthier check` find. Precision is the share of what is flagged that was planted. It "
        "depends on how many look-alikes stand beside the faults: here up to as many of every kind as of "
        "every kind of fault. Recall is the share of what was planted that is flagged. Intervals are 95% "
        "(Wilson).",
        "Thresholds were set on one half of the data sets; the other half was looked at only after that, "
        "and no threshold was changed because of it. Held out are the texts and labels: the rules of "
        "rewording, the courtesies and the kinds of keys and numbers are the same in both halves, and "
        "both those and the lists in the checks are ours. Only `chatter around it` was written last, and "
        "nothing was changed for it.",
        f"Tuning: {names['tuning']}. Held out: {names['held-out']}.",
        "Real texts that are alike by nature would count as wrong findings, or hide them: of every two with "
        f"a Jaccard similarity of {NATURAL} or more, in words or in 5 letters in a row, over all pairs and "
        "by other code than the check's, one is left out.",
        f"Processor time of all of it: {minutes:.1f} min on one core. luthier {facts['luthier']}, Python "
        f"{facts['python']}.",
        "## In short\n\n" + _summary(outcomes),
    ]
    parts += [_part(name, [o for o in outcomes if o.part == name]) for name in PARTS]
    parts.append(_labels([o for o in outcomes if o.part == "label_error"]))
    parts.append(_answers([o for o in outcomes if o.part == "answers"]))
    parts += [CANNOT_SEE, LIBRARIES]
    return "\n\n".join(parts) + "\n"


def _tallies(outcomes: Iterable[Outcome]) -> list[Tally]:
    return [tally for outcome in outcomes for tally in outcome.counted()]


def _summary(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for name, title in PARTS.items():
        held = _tallies(o for o in outcomes if o.part == name and o.half == "held-out")
        for label, tallies in _by_weight(held):
            rates = Rates.of(tallies)
            if not rates.planted:
                continue
            good = rates.precision >= GOAL and rates.recall >= GOAL
            row = [title + label, rates.show_precision(), rates.show_recall(), "yes" if good else "no"]
            rows.append(row)
    head = ["held-out data", "precision", "recall", f"both {GOAL} or more"]
    return table(head, rows) if rows else "The held-out half has not been measured."


def _by_weight(tallies: Sequence[Tally]) -> list[tuple[str, list[Tally]]]:
    """All, or slight and heavy rewordings apart where there are both."""
    slight = [tally for tally in tallies if tally.kind not in HEAVY]
    if len(slight) == len(tallies):
        return [("", list(tallies))]
    return [(", slight changes", slight), (", synonyms and rewording too", list(tallies))]


def _part(name: str, outcomes: Sequence[Outcome]) -> str:
    lines = [f"## {PARTS[name]} (`{name}`)", WHAT[name]]
    if not outcomes:
        return "\n\n".join([*lines, "Not measured."])
    by_half = {half: _tallies(o for o in outcomes if o.half == half) for half in HALVES}
    kinds = dict.fromkeys((tally.kind, tally.fault) for tallies in by_half.values() for tally in tallies)
    for fault, title in ((True, "planted fault"), (False, "no fault")):
        rows = [
            [kind, *(_flagged(by_half[half], kind, fault) for half in HALVES)]
            for kind, is_fault in kinds
            if is_fault == fault
        ]
        if rows:
            lines.append(table([f"{title}: share flagged", *HALVES], rows))
    rows = []
    for half, tallies in by_half.items():
        for label, own in _by_weight(tallies):
            rates = Rates.of(own)
            rows.append([half + label, rates.show_precision(), rates.show_recall()])
    lines.append(table(["", "precision", "recall"], rows))
    lines += _notes(outcomes)
    return "\n\n".join(lines)


def _flagged(tallies: Sequence[Tally], kind: str, fault: bool) -> str:
    own = [tally for tally in tallies if tally.kind == kind and tally.fault == fault]
    return share(sum(tally.flagged for tally in own), sum(tally.total for tally in own))


def _notes(outcomes: Sequence[Outcome]) -> list[str]:
    sets = [
        f"{o.data} {o.notes['texts']} (and {o.notes['left_out']})" for o in outcomes if "left_out" in o.notes
    ]
    times = [o.notes["microseconds"] for o in outcomes if "microseconds" in o.notes]
    lines = (
        [f"Texts of each set (and how many were left out as alike by nature): {', '.join(sets)}."]
        if sets
        else []
    )
    if times:
        shown = " and ".join(f"{time:.1f}" for time in times)
        lines.append(f"Processor time per text: {shown} microseconds.")
    return lines


def _labels(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "## Wrong labels (`label_error`)",
        "Labels of real texts are replaced, by any other label or by the one whose texts are most alike. "
        "The labels of the sets have mistakes of their own, which count as wrong findings here. Picking "
        "as many at random has the share of wrong labels as its precision. cleanlab comes as its defaults "
        "are: `find_label_issues` on the same out-of-fold probabilities, and `CleanLearning()` with its "
        "own model on scikit-learn's default word weights. The margin was set with the figures of both "
        "halves in view: no set here is held out from it.",
    ]
    rows = []
    for outcome in outcomes:
        rows += [_label_row(outcome, count) for count in outcome.notes.get("counts", ())]
    head = ["set", "half", "wrong", "replaced by", "precision", "times random", "recall"]
    head += ["cleanlab, same probabilities: precision, recall", "cleanlab, its own model: precision, recall"]
    if rows:
        lines.append(table(head, rows))
    said = [f"- {o.data} ({o.half}): {o.notes['said']}." for o in outcomes if "said" in o.notes]
    if said:
        lines.append("Sets that a linear model does not learn, without planted faults:\n\n" + "\n".join(said))
    return "\n\n".join(lines)


def _label_row(outcome: Outcome, count: Mapping[str, Any]) -> list[str]:
    (right, flagged, wrong), *others = count["sides"].values()
    chance = wrong / count["rows"]
    return [
        outcome.data,
        outcome.half,
        f"{count['rate']:.0%} of {count['rows']}",
        count["noise"],
        share(right, flagged),
        f"{right / flagged / chance:.1f}" if flagged else "flags none",
        share(right, wrong),
        *(f"{a / max(1, b):.2f}, {a / max(1, c):.2f}" for a, b, c in others),
    ]


def _answers(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for outcome in outcomes:
        tallies = outcome.counted()
        for fault, clean in zip(tallies[::2], tallies[1::2], strict=True):
            rates = Rates(fault.flagged, fault.total, clean.flagged)
            row = [
                fault.kind,
                f"{outcome.data} ({outcome.half})",
                rates.show_precision(),
                rates.show_recall(),
            ]
            rows.append([*row, share(clean.flagged, clean.total)])
    head = ["fault in the answer", "set", "precision", "recall", "other answers flagged"]
    text = (
        "Three of a hundred answers of a set are replaced: by a refusal, by its own beginning, by another "
        "language, by letters read in a wrong encoding. The other answers are prose of whole sentences; "
        "beside misread letters they have right letters beyond ASCII. Where many answers are cut off or in "
        "another language, one finding says so of the whole."
    )
    return "## Answers\n\n" + text + ("\n\n" + table(head, rows) if rows else "\n\nNot measured.")
