"""What must remain, round by round, and the cost that counts it; the main process decides for all.

Several targets are met one after another, each in as many rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from ..cost import BudgetError, Cost, FlopCost, ParameterCost, format_size, parse_target, target_unit
from ..latency.cost import LatencyCost, meet_budget
from ..latency.table import LatencyTable
from ..run.processes import on_main_process
from ..shape import Shape, with_projection
from ..training.loop_config import AUTO
from .config import DEFAULT, PruningConfig
from .methods import METHODS
from .plan import PruningPlan
from .selection import check_smallest, smallest_shape
from .units import DimensionsError, Group, check_dimensions, find_groups


class Budget:
    """Targets in the unit of a cost, and the way to each in equal steps.

    Args:
        model: the dense one.
        whole: parameters that a share refers to, where the model has lost some already; None: its own.

    Raises:
        BudgetError: a target is not a size, not below the model's own or the target before it, or out of reach.
        LatencyError: the forward pass cannot be timed.
    """

    def __init__(
        self, config: PruningConfig, model: PreTrainedModel, accelerator: Accelerator, whole: float | None = None
    ) -> None:
        self.accelerator = accelerator
        self.cost = make_cost(config, model, accelerator)
        self.timed: dict[Shape, float] = {}
        self.unit, self.source_size = self.cost.unit, self.cost(Shape.of(model.config))
        self.names = config.targets
        if whole is None or self.unit != ParameterCost.unit:
            whole = self.source_size
        self.targets = [parse_target(name, whole, self.unit) for name in self.names]
        if self.targets[0] >= self.source_size:
            raise BudgetError(
                f"`target` is {self.names[0]!r}, {format_size(self.targets[0])} {self.unit} of {format_size(whole)}, "
                f"and trimming the vocabulary leaves {format_size(self.source_size)}. Give a target below that, or "
                "trim alone: `schubert trim`."
            )
        for (name, size), (following, smaller) in itertools.pairwise(zip(self.names, self.targets, strict=True)):
            if smaller >= size:
                raise BudgetError(
                    f"`target` is {config.target!r}, where {following!r} is not below {name!r}. Give the sizes from "
                    "the largest to the smallest."
                )
        self.rounds, self.all_rounds = config.rounds, config.rounds * len(self.targets)
        groups, smallest = find_smallest(config, model, self.cost)
        check_smallest(smallest, groups, self.cost, self.targets[-1])

    def limit(self, number: int) -> float:
        """The size after a round: round t of T ends t/T of the way to its target."""
        index, done = divmod(number - 1, self.rounds)
        begin, end = [self.source_size, *self.targets][index : index + 2]
        return end + (begin - end) * (self.rounds - 1 - done) / self.rounds

    def reached(self, number: int) -> int | None:
        """Which target is met after so many rounds, counted from 0; None between two targets."""
        index, left = divmod(number, self.rounds)
        return index - 1 if number and not left else None

    def choose(self, limit: float, select: Callable[[Cost, float], PruningPlan]) -> PruningPlan:
        """The main process's plan for a limit, on every process; of a latency, one whose model was timed.

        Raises:
            BudgetError: on every process, where `select` finds that the limit cannot be met.
        """
        cost = self.cost

        def decide() -> dict[str, Any]:
            try:
                if isinstance(cost, LatencyCost):
                    plan, size = meet_budget(partial(select, cost), limit, cost)
                else:
                    plan = select(cost, limit)
                    size = cost(plan.shape)
            except BudgetError as error:
                return {"unreachable": str(error)}
            return {"plan": plan.to_json(), "size": size}

        decision = on_main_process(self.accelerator, decide)
        if "unreachable" in decision:
            raise BudgetError(decision["unreachable"])
        plan = PruningPlan.from_json(decision["plan"])
        self.timed[plan.shape] = decision["size"]
        self.settle(plan)
        return plan

    def settle(self, plan: PruningPlan) -> None:
        """Makes `cost` give, for one of the plans that were chosen, what was timed for it and not for a later one."""
        if isinstance(self.cost, LatencyCost):
            self.cost.table = self.cost.table.corrected(plan.shape, self.timed[plan.shape])
        elif isinstance(self.cost, LatencyTable):  # this process times nothing: it learns what the main one measured
            self.cost = self.cost.corrected(plan.shape, self.timed[plan.shape])


def name_cost(config: PruningConfig) -> str:
    """Which cost a run's settings name: by `cost` or, where that is None, by the unit of the target."""
    units = {"FLOPs": "flops", "ms": "latency"}
    return config.cost or units.get(target_unit(config.targets[0]) or "", "parameters")


def resolve_dimensions(config: PruningConfig, model: PreTrainedModel) -> PruningConfig:
    """The settings with their dimensions: by default `DEFAULT`, and e where the method can project embeddings.

    e goes where it would save nothing that is counted, which is FLOPs or time.

    Raises:
        DimensionsError: e is among the dimensions given, and the method projects no embeddings.
    """
    auto = config.dimensions == AUTO
    given = f"{DEFAULT}e" if auto else config.dimensions
    if name_cost(config) != "parameters" and given != "e":
        given = given.replace("e", "")
    if "e" not in given:
        return replace(config, dimensions=given)
    lacks = not model.config.project_embeddings and not METHODS[config.method].calibrates
    if lacks and not auto:
        raise DimensionsError(
            "`dimensions` has e, the embedding size, but no projection leads from the model's embeddings to its first "
            f"layer, and method {config.method} makes none. Take method auto, or leave e out."
        )
    return replace(config, dimensions=DEFAULT if lacks else check_dimensions(given))


def find_smallest(config: PruningConfig, model: PreTrainedModel, cost: Cost) -> tuple[dict[Group, int], Shape]:
    """How many units of each group a run may cut, and the shape when all are gone that may; `config` is resolved."""
    reached = with_projection(model.config) if "e" in config.dimensions else model.config
    groups = find_groups(reached, config.dimensions)
    return groups, smallest_shape(groups, reached, cost, config.multiples)


def make_cost(config: PruningConfig, model: PreTrainedModel, accelerator: Accelerator) -> Cost:
    """The cost that a run's settings name."""
    name = name_cost(config)
    if name == "parameters":
        return ParameterCost(model)
    work: dict[str, Any] = {"batch_size": config.cost_batch_size, "seq_len": config.cost_seq_len}
    if name == "flops":
        return FlopCost(model.config, **work)
    timed: list[LatencyCost] = []

    def measure() -> dict[str, Any]:
        timed.append(LatencyCost(model.config, **work, device=accelerator.device, progress=True))
        return timed[0].table.to_json()

    table = on_main_process(accelerator, measure)
    return timed[0] if timed else LatencyTable.from_json(table)
