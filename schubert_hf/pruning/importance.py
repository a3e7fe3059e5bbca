"""Criteria: how much each unit matters. Each is a small pure function from what is known of the units to a score."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .units import Group

Scores = dict[Group, Tensor]


def alpha_importance(alphas: Mapping[Group, Tensor]) -> Scores:
    """|alpha|: trained under an L1 penalty, the alphas of units that the loss can do without shrink.

    Khetan & Karnin 2020 (arXiv 2005.06628), Algorithm 1, step 4. The paper says "smallest"; that the absolute value is
    meant is our reading, since a unit with a large negative alpha matters.

    Args:
        alphas: by group, shape (units,).
    """
    return {group: alpha.abs() for group, alpha in alphas.items()}
