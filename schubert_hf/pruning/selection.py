"""Scores and a budget to a plan: step 4 of Algorithm 1 (Khetan & Karnin 2020), met to within one step.

Units go in steps of `multiple_of` within their group, least important first. Steps of all groups compete by the mean
importance of their units. The cut is made where the cost first falls to the budget; then steps are put back, most
important first, as long as they fit, so that what is left under the budget is less than any step that was taken.

Steps come in queues and leave each in order, so a cost need only know how many units have left each queue. A group is
one queue. The channels of a model with unequal hidden sizes are several: one for each stretch between two widths, so
that widths which are multiples stay multiples.

All filters and all heads of a layer may go, and all layers but the most important one; of channels, keys and values
one step stays.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..configuration_schubert import SchuBertConfig
from ..cost import BudgetError, Cost, format_size
from ..shape import DIMENSIONS, Shape
from .plan import Indices, PruningPlan
from .precision import exact
from .units import EMBEDDINGS, STREAM, Group

MAY_GO = "fa"  # of these kinds a layer can do without any


@dataclass(frozen=True, eq=False)  # compared by identity: there are a hundred queues and a hundred thousand steps
class Queue:
    """Units of a group that go one after the other; those of h are the channels from `start` to the next width."""

    group: Group
    start: int


class Step(NamedTuple):
    """Units that go together, with the importance that decides when."""

    queue: Queue
    units: Indices
    score: float


def select(
    scores: Mapping[Group, Tensor],
    config: SchuBertConfig,
    cost: Cost,
    budget: float,
    *,
    multiple_of: Mapping[str, int] | None = None,
) -> PruningPlan:
    """Chooses what stays, so that `cost` of the new shape is at most `budget`, and less than one step below it.

    Args:
        scores: importance of the units of every group that may be cut, shape (units,); the smallest go first.
        multiple_of: per dimension, what the number of kept units of a group is a multiple of (default 1). A group
            keeps its whole width or a multiple.

    Raises:
        BudgetError: the smallest shape that can be reached is above the budget.
    """
    source = Shape.of(config)
    steps = plan_steps(scores, source, multiple_of or {})
    check_smallest(shape_without(source, count_units(steps)), scores, cost, budget)

    def fits(gone: Mapping[Queue, int]) -> bool:
        return cost(shape_without(source, gone)) <= budget

    number = bisect_left(range(len(steps)), True, key=lambda count: fits(count_units(steps[:count])))
    kept = {group: set(range(len(score))) for group, score in scores.items()}
    for step in _put_back(steps[:number], fits):
        kept[step.queue.group].difference_update(step.units)
    if source.embedding_size is not None:
        kept[EMBEDDINGS] = _no_more_than_channels(kept, scores, source)
    return PruningPlan.from_kept(source, {group: tuple(units) for group, units in kept.items()})


def _no_more_than_channels(kept: Mapping[Group, set[int]], scores: Mapping[Group, Tensor], source: Shape) -> set[int]:
    """The embeddings' entries that stay: of those that would, the most important, no more than channels."""
    channels = sum(n < source.hidden_sizes[0] for n in kept.get(STREAM, range(source.hidden_sizes[0])))
    every = range(source.embedding_size or 0)
    score = exact(scores[EMBEDDINGS]).tolist() if EMBEDDINGS in scores else [-float(n) for n in every]
    return set(sorted(kept.get(EMBEDDINGS, every), key=score.__getitem__, reverse=True)[:channels])


def smallest_shape(
    groups: Mapping[Group, int], config: SchuBertConfig, cost: Cost, multiple_of: Mapping[str, int]
) -> Shape:
    """What is left when every step is taken.

    Which layer stays when all others go is for the scores to say: here it is the one that costs most.
    """
    source, layers = Shape.of(config), [group.layer for group in groups if group.dimension == "l"]
    units = {group: torch.zeros(number) for group, number in groups.items() if group.dimension != "l"}
    shape = shape_without(source, count_units(plan_steps(units, source, multiple_of)))
    return max((shape.without_layers(set(layers) - {layer}) for layer in layers), key=cost, default=shape)


def check_smallest(smallest: Shape, groups: Iterable[Group], cost: Cost, budget: float) -> None:
    """Raises `BudgetError`, which names the smallest size that can be reached, unless that meets the budget."""
    if (size := cost(smallest)) > budget:
        letters = "".join(dict.fromkeys(group.dimension for group in groups))
        number = f"{math.ceil(size):_}" if size >= 1000 else f"{size:.4g}"
        forgotten = cost.unit == "parameters" and 1 < budget <= 100
        share = f'For a share of the model write "{budget:g}%". ' if forgotten else ""
        raise BudgetError(
            f"The target {format_size(budget)} {cost.unit} is below {number}, the smallest that removing {letters!r} "
            f"can reach. {share}Give a larger target, more `dimensions`, or a smaller `multiple_of`."
        )


def plan_steps(scores: Mapping[Group, Tensor], source: Shape, multiple_of: Mapping[str, int]) -> list[Step]:
    """All steps that may be taken, in the order in which they go; equals go in the order of `scores`."""
    steps: list[Step] = []
    layers = [group for group in scores if group.dimension == "l"]
    stays = max(layers, key=lambda group: float(scores[group]), default=None)
    for group, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise ValueError(f"The importance of group `{group}` is not finite everywhere; it cannot be ranked.")
        values = exact(score).tolist()
        multiple = 1 if group.dimension == "l" else multiple_of.get(group.dimension, 1)
        stretches = sorted({0, *source.hidden_sizes}) if group.dimension == "h" else [0, len(values)]
        for start, end in pairwise(stretches):
            order = sorted(range(start, end), key=values.__getitem__)
            # The first step takes the odd rest, so that what stays is a multiple.
            bounds = [0, *range(len(order) % multiple or multiple, len(order), multiple)]
            # All may go of channels that a narrower layer lacks anyway.
            may_empty = start > 0 or group.dimension in MAY_GO or (group in layers and group != stays)
            queue, worth = Queue(group, start), -math.inf
            for first, last in pairwise([*bounds, len(order)] if may_empty else bounds):
                units = sorted(order[first:last])
                # Never below the step before it, whatever the rounding of the mean: a queue is left in order.
                worth = max(worth, sum(values[unit] for unit in units) / len(units))
                steps.append(Step(queue, tuple(units), worth))
    return sorted(steps, key=lambda step: step.score)


def count_units(steps: Iterable[Step]) -> Counter[Queue]:
    """How many units leave each queue with some steps."""
    gone: Counter[Queue] = Counter()
    for step in steps:
        gone[step.queue] += len(step.units)
    return gone


def shape_without(source: Shape, gone: Mapping[Queue, int]) -> Shape:
    """The shape that is left when so many units of each queue have gone."""
    lists, embeddings = source.lists(), source.embedding_size
    dropped: set[int | None] = set()
    for queue, units in gone.items():
        if queue.group.dimension == "l":
            dropped |= {queue.group.layer} if units else set()
            continue
        if queue.group.dimension == "e":
            embeddings = (embeddings or 0) - units
            continue
        sizes, layer = lists[DIMENSIONS[queue.group.dimension]], queue.group.layer
        if layer is not None:
            sizes[layer] -= units
            continue
        for index, width in enumerate(source.hidden_sizes):
            sizes[index] -= units if width > queue.start else 0
    if embeddings is not None:  # more than channels would be of no use
        embeddings = min(embeddings, lists["hidden_sizes"][0])
    return Shape(*map(tuple, lists.values()), embedding_size=embeddings).without_layers(dropped)


def _put_back(removed: list[Step], fits: Callable[[Mapping[Queue, int]], bool]) -> list[Step]:
    """Gives back steps, the most important first, while the rest fits; of a queue only the last one can go back."""
    gone = count_units(removed)
    full: set[Queue] = set()  # queues whose last step does not fit; that only gets worse as others are put back
    stay_removed = []
    for step in reversed(removed):
        gone[step.queue] -= len(step.units)
        if step.queue in full or not fits(gone):
            gone[step.queue] += len(step.units)
            full.add(step.queue)
            stay_removed.append(step)
    return stay_removed
