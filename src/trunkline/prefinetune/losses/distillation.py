"""Distillation of features."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between the features of student and teacher, in [0, 2]; a scalar.

    Args:
        student: [units, width].
        teacher: [units, width], without gradient.
    """
    return (1 - F.cosine_similarity(student, teacher.detach(), dim=-1)).mean()
