"""Graders: an answer against its reference becomes a score in [0, 1], or stays unscored with a reason."""

from luthier.grade.choose import build_grader, choose_grader
from luthier.grade.score import Doubtful, Grader, GradesMany, Score, Summarises, grade_all

__all__ = [
    "Doubtful",
    "Grader",
    "GradesMany",
    "Score",
    "Summarises",
    "build_grader",
    "choose_grader",
    "grade_all",
]
