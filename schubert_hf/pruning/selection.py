"""Scores and a budget to a plan: step 4 of Algorithm 1 (Khetan & Karnin 2020), met to within one step.

Units go in steps of `multiple_of` within their group, least important first. Steps of all groups compete by the mean
importance of their units. The cut is made where the cost first falls to the budget; then steps are put back, most important
first, as long as they fit, so that what is left under the budget is less than any step that was taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..configuration_schubert import SchuBertConfig
from ..cost import BudgetError, Cost, Shape, format_size
from .plan import Indices, PruningPlan
from .units import Group


@dataclass(frozen=True)
class Step:
    """Units of one group that go together; `number` counts the steps of the group, the first to go is 0."""

    group: Group
    number: int
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
        config: of the model that is cut.
        budget: in the unit of `cost`.
        multiple_of: per dimension, what the number of kept units of a group is a multiple of (default 1). A group keeps
            its whole width or a multiple, and at least one step.

    Raises:
        BudgetError: the smallest shape that can be reached is above the budget.
    """
    source = Shape.of(config)
    steps = plan_steps(scores, multiple_of or {}, narrowest=min(source.hidden_sizes))

    def size_after(number: int) -> float:
        return cost(shape_without(source, steps[:number]))

    if size_after(len(steps)) > budget:
        letters = "".join(dict.fromkeys(group.dimension for group in scores))
        raise BudgetError(
            f"The target {format_size(budget)} {cost.unit} is below {format_size(size_after(len(steps)))}, the smallest that "
            f"removing {letters!r} can reach with one step left in every group. "
            "Give a larger target, more `dimensions`, or a smaller `multiple_of`."
        )
    number = bisect_left(range(len(steps)), True, key=lambda count: size_after(count) <= budget)
    removed = _put_back(steps[:number], lambda taken: cost(shape_without(source, taken)) <= budget)
    gone = {group: {unit for step in removed if step.group == group for unit in step.units} for group in scores}
    return PruningPlan.from_kept(
        source,
        {group: tuple(n for n in range(len(score)) if n not in gone[group]) for group, score in scores.items()},
    )


def plan_steps(scores: Mapping[Group, Tensor], multiple_of: Mapping[str, int], *, narrowest: int) -> list[Step]:
    """All steps that may be taken, in the order in which they go.

    Args:
        narrowest: the smallest hidden size: one of its channels, the most important, always stays.
    """
    steps = []
    for group, score in scores.items():
        multiple = multiple_of.get(group.dimension, 1)
        order = sorted(range(len(score)), key=score.tolist().__getitem__)
        if group.dimension == "h" and narrowest < len(order):
            kept = next(n for n in reversed(order) if n < narrowest)
            order = [n for n in order if n != kept] + [kept]
        # The first step takes the odd rest, so that what stays is a multiple; the last multiple never goes.
        first = len(order) % multiple or multiple
        bounds = [0, *range(first, len(order), multiple)]
        running = float("-inf")
        for number, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
            units = tuple(sorted(order[start:end]))
            # Never below the step before it: within a group steps go in order, also after the exchange above.
            running = max(running, float(score[list(units)].double().mean()))
            steps.append(Step(group, number, units, running))
    return sorted(steps, key=lambda step: step.score)


def shape_without(source: Shape, removed: list[Step]) -> Shape:
    """The shape that is left when some steps are taken."""
    gone: dict[Group, list[int]] = {}
    for step in removed:
        gone.setdefault(step.group, []).extend(step.units)
    shape = source
    for group, units in gone.items():
        if group.layer is not None:
            shape = shape.shrink(group.dimension, group.layer, len(units))
        else:  # channels go from every layer that is wide enough to have them
            sizes = tuple(width - sum(unit < width for unit in units) for width in source.hidden_sizes)
            shape = Shape(**{**shape.__dict__, "hidden_sizes": sizes})
    return shape


def _put_back(removed: list[Step], fits: Callable[[list[Step]], bool]) -> list[Step]:
    """Gives back steps, the most important first, while the rest still fits; of a group only the last one taken can go back."""
    removed = list(removed)
    full: set[Group] = set()  # groups whose last step does not fit; that only gets worse as others are put back
    for candidate in reversed(list(removed)):
        if candidate.group in full:
            continue
        rest = [step for step in removed if step != candidate]
        if fits(rest):
            removed = rest
        else:
            full.add(candidate.group)
    return removed
