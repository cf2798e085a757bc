"""Graders: an answer against its reference becomes a score in [0, 1], or stays unscored with a reason."""

from luthier.grade.choose import build_grader, choose_grader
from luthier.grade.score import Grader, Score

__all__ = ["Grader", "Score", "build_grader", "choose_grader"]
