"""Answers to scores: the recipe's grader, and the score that chooses an epoch."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import RecordError
from luthier.examples import Example, Split
from luthier.recipe import Recipe
from luthier.recipe.grader_options import PYTHON, JudgeOptions, RewardModelOptions
from luthier.record import STAGE_FOLDER, Record, sha256_of

if TYPE_CHECKING:
    from luthier.grade import Grader

VALIDATION_ANSWERS = 64  # a standard error of at most 6 points: enough to tell epochs apart that matter


def recipe_grader(recipe: Recipe, split: Split) -> Grader:
    """The grader that the recipe names, or that its training answers ask for."""
    from luthier.grade import build_grader, choose_grader
    from luthier.grade.likelihood import Likelihood

    if recipe.reads_texts:
        return Likelihood()
    references = [example.answer for example in split.train]
    schema = None if recipe.answer_schema is None else Path(recipe.answer_schema)
    return build_grader(recipe.grader or choose_grader(references), references, answer_schema=schema)


def build_reward_grader(recipe: Recipe, split: Split) -> Grader:
    """What an online method is rewarded by: the recipe's `reward`, or its grader."""
    return recipe_grader(_rewarding(recipe), split)


def grader_inputs(recipe: Recipe) -> dict[str, Any]:
    """What a score depends on beside the answers: the grader with its options, and the files it reads."""
    from luthier.models import model_identity

    grader, file = recipe.grader, getattr(recipe.grader, "labels", None)
    if isinstance(grader, str) and grader.startswith(PYTHON):
        file = grader.removeprefix(PYTHON).rsplit(":", 1)[0]
    judge = grader.model if isinstance(grader, JudgeOptions) else None
    return {
        "grader": [*recipe.model_dump(include={"grader"}).values(), file_hash(file)],
        "judge": model_identity(judge) if judge else None,
        **({"adapter": _adapter_hashes(grader)} if isinstance(grader, RewardModelOptions) else {}),
        "schema": file_hash(recipe.answer_schema),
    }


def reward_inputs(recipe: Recipe) -> dict[str, Any]:
    """What a reward depends on beside the answers, where it is not the grader's score."""
    if recipe.reward is None:
        return {}
    return {"reward": grader_inputs(_rewarding(recipe))}


def _adapter_hashes(options: RewardModelOptions) -> list[str | None]:
    """Of the reward model's weights; its base does not change under them."""
    return [sha256_of(file) for file in sorted(Path(options.run, "adapter").glob("*.safetensors"))]


def _rewarding(recipe: Recipe) -> Recipe:
    """The recipe with its reward in the grader's place."""
    return recipe if recipe.reward is None else recipe.model_copy(update={"grader": recipe.reward})


def require_judge(recipe: Recipe, record: Record) -> None:
    """Refuse a judge without its key or its labels before the work that comes before grading.

    Raises:
        RecipeError: the variable that should hold the endpoint's key is not set.
        DataError: the file of labels is no good.
    """
    if isinstance(recipe.grader, JudgeOptions) and record.stage_memo("grade") is None:
        from luthier.grade.judged import check_judge

        check_judge(recipe.grader)


def ask_absent_judge_again(record: Record) -> None:
    """Forget a grading in which a judge was out of reach for some answers; its other replies are kept."""
    judge = None
    with contextlib.suppress(RecordError):  # not graded yet, or altered: then it is graded anyway
        judge = record.read_json("scores.json").get("judge")
    if judge and judge["unreached"]:
        (record / STAGE_FOLDER / "grade.json").unlink(missing_ok=True)


def validation_sample(recipe: Recipe, split: Split) -> list[Example]:
    """The validation side, or 64 of it drawn by the seed: what choices are made on."""
    chosen = list(split.validation)
    if len(chosen) > VALIDATION_ANSWERS:
        chosen = random.Random(f"{recipe.seed}/validation").sample(chosen, VALIDATION_ANSWERS)
    return chosen


def mean_score(
    answers: Sequence[Mapping[str, Any]], asked: Sequence[Example], grader: Grader
) -> tuple[float | None, int]:
    """Mean score of answers to `asked`, and of how many: None of 0 where nothing could be scored."""
    from luthier.evidence.evaluation import grade_answers

    rows = grade_answers(answers, asked, grader)
    scores = [row["score"] for row in rows if row["score"] is not None]
    return (sum(scores) / len(scores) if scores else None), len(scores)


def file_hash(file: str | None) -> str | None:
    """sha256 of a file that a recipe may name; None where it names none, or there is none."""
    return None if file is None else sha256_of(Path(file))
