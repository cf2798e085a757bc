"""Answers that a model wrote, on the side that decides.

The score of a test against another model's answers is agreement with that model. What a person accepted
counts as a person's.
"""

from __future__ import annotations

from luthier.audit.finding import Finding, Material, NotApplicableError, counted


def find_synthetic_test(material: Material) -> list[Finding]:
    """One finding for all test examples whose provenance says `synthetic`, and no `accepted_by`.

    Score is their share of the test side.

    Raises:
        NotApplicableError: there is no test side.
    """
    test = material.sides.get("test", ())
    if not test:
        raise NotApplicableError("there is no test side yet")
    found = [e for e in test if e.provenance.get("synthetic") is True and not e.provenance.get("accepted_by")]
    if not found:
        return []
    models = dict.fromkeys(str(e.provenance["model"]) for e in found if e.provenance.get("model"))
    who = " or ".join(list(models)[:3]) or "a model"
    return [
        Finding(
            check="synthetic_test",
            severity="warning",
            score=len(found) / len(test),
            message=f"{counted(len(found), 'test answer')} of {len(test)} written by {who}, read by nobody",
            fix="the scores tell agreement with that model: have a person accept or edit the test answers",
            examples=tuple(found),
        )
    ]
