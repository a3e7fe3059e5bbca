"""Criteria: how much each unit matters. Each is a small pure function from what is known of the units to a score.

Scores have the shape (units,) by group, and so have alphas; `groups` gives the number of units of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..anatomy import place_of_tensor
from .precision import exact
from .units import Group

Scores = dict[Group, Tensor]


def alpha_importance(alphas: Mapping[Group, Tensor]) -> Scores:
    """|alpha|: trained under an L1 penalty, the alphas of units that the loss can do without shrink.

    Khetan & Karnin 2020 (arXiv 2005.06628), Algorithm 1, step 4. The paper says "smallest"; that the absolute value is
    meant is our reading, since a unit with a large negative alpha matters.
    """
    return {group: alpha.abs() for group, alpha in alphas.items()}


def magnitude_importance(groups: Mapping[Group, int], tensors: Iterable[tuple[str, Tensor]]) -> Scores:
    """The root mean square of a unit's weights in the matrices that are gated, Q, K, V, P, D, G.

    Li et al. 2017, *Pruning Filters for Efficient ConvNets* (arXiv 1608.08710), sums the magnitudes of a filter's
    weights; the mean, since units of different kinds, which own different numbers of weights, compete here.
    """
    sums = {group: torch.zeros(units, dtype=torch.float64) for group, units in groups.items()}
    counts = {group: torch.zeros(units, dtype=torch.float64) for group, units in groups.items()}
    for name, tensor in tensors:
        if tensor.ndim != 2 or not place_of_tensor(name).row.gated:
            continue
        for group, squares in _squares_by_unit(name, exact(tensor).square(), groups):
            sums[group][: len(squares)] += squares
            counts[group][: len(squares)] += tensor.numel() / len(squares)
    return {group: (sums[group] / counts[group].clamp(min=1)).sqrt() for group in groups}


def _squares_by_unit(name: str, squares: Tensor, groups: Mapping[Group, int]) -> Iterator[tuple[Group, Tensor]]:
    """For every unit that owns a slice of a matrix, the sum of the slice's squares."""
    where = place_of_tensor(name)
    for dim, axis in enumerate(where.axes(2)):
        if axis is None:
            continue
        entries = squares.sum(1 - dim)  # (width of the axis,)
        if axis.kind in ("embedding", "hidden", "filter"):
            owners = {"embedding": Group("e", None), "hidden": Group("h", None), "filter": Group("f", axis.layer)}
            owned = {owners[axis.kind]: entries}
        else:  # heads first: entry n of head a is a * size + n
            heads, entry = Group("a", axis.layer), Group("k" if axis.kind == "key_query" else "v", axis.layer)
            owned = {heads: entries.view(groups[heads], -1).sum(1)} if heads in groups else {}
            owned |= {entry: entries.view(-1, groups[entry]).sum(0)} if entry in groups else {}
        yield from ((group, sums) for group, sums in owned.items() if group in groups)
    if Group("l", where.layer) in groups:
        yield Group("l", where.layer), squares.sum().view(1)


def random_importance(groups: Mapping[Group, int], seed: int) -> Scores:
    """Uniform random numbers, the same for a seed on every machine: the baseline that every criterion has to beat."""
    generator = torch.Generator().manual_seed(seed)
    return {group: torch.rand(units, generator=generator, dtype=torch.float64) for group, units in groups.items()}


def ranks_within_groups(scores: Mapping[Group, Tensor]) -> Scores:
    """Ranks within the group, spread evenly over 0 to 1: selection then shrinks every group by the same factor.

    So "BERT-all uniform" of Khetan & Karnin 2020 needs no selection of its own. All layers together are one group.
    """
    layers = [group for group in scores if group.dimension == "l"]
    ranks = {group: _spread_ranks(score) for group, score in scores.items() if group not in layers}
    if layers:
        together = _spread_ranks(torch.cat([scores[group] for group in layers]))
        ranks |= {group: rank.view(1) for group, rank in zip(layers, together, strict=True)}
    return ranks


def _spread_ranks(score: Tensor) -> Tensor:
    order = score.argsort(stable=True)
    ranks = torch.empty(len(score), dtype=torch.float64)
    ranks[order] = (torch.arange(len(score), dtype=torch.float64) + 0.5) / len(score)
    return ranks
