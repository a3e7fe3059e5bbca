"""The way back to the dense model's width, and so to vectors that were stored with it: a map behind the pooling.

Where channels were cut, the pooled vector x has only some of the dense one's entries, t. The map W x + b is fitted to
t by least squares on training text; it starts from "an entry that stays is itself", and its ridge, one for each
entry, is the one that is best on text that is kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..anatomy import Axis
from ..pruning.least_squares import Regression
from ..pruning.plan import PruningPlan
from .sentence_encoder import Map

FOLD = 5  # one text in so many is kept apart


def channels_left(plans: Sequence[PruningPlan], width: int) -> list[int]:
    """Which of the dense last layer's `width` channels the last layer of the pruned model has."""
    left = list(range(width))
    for plan in plans:
        left = [left[n] for n in plan.kept(Axis("hidden", -1)).tolist()]
    return left


def fit_map(own: Tensor, dense: Tensor, channels: Sequence[int], width: int) -> Map:
    """Weight (dense, own) and bias (dense,) from pooled vectors of both models on the same texts.

    Args:
        own: (texts, parts * channels), parts being the number of ways in which the tokens are pooled side by side.
        dense: (texts, parts * width).
        channels: of the dense model, those that stay.
        width: of the dense model's states.
    """
    parts = dense.shape[1] // width
    places = [part * width + channel for part in range(parts) for channel in channels]
    start = torch.zeros(dense.shape[1], own.shape[1], dtype=own.dtype)
    start[places, range(len(places))] = 1.0
    lack = dense - own @ start.mT
    regression = Regression(own.shape[1], [1] * dense.shape[1])
    apart = torch.arange(len(own)) % FOLD == FOLD - 1
    for fold in (False, True):
        some = apart if fold else ~apart
        regression.add(own[some], lack[some], fold=fold)
    found = regression.solve()
    weight = start + torch.cat([one.weight for one in found]).to(start)
    return weight, torch.cat([one.bias for one in found]).to(start)
