"""What must remain, round by round, and the cost that counts it; decided by the main process for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from ..cost import Cost, FlopCost, ParameterCost, Shape, parse_target, target_unit
from ..latency import LatencyCost, meet_budget
from ..latency_table import LatencyTable
from ..training.environment import on_main_process
from .config import PruningConfig
from .plan import PruningPlan


class Budget:
    """A target in the unit of a cost, and the way there in equal steps.

    Args:
        config: names target, cost and number of rounds.
        model: that the run begins with.
        accelerator: knows the processes.

    Raises:
        BudgetError: the target is none, or not below the model's size.
        LatencyError: the forward pass that is to be timed is not possible.
    """

    def __init__(self, config: PruningConfig, model: PreTrainedModel, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.cost = make_cost(config, model, accelerator)
        self.source_size = self.cost(Shape.of(model.config))
        self.target = parse_target(config.target, self.source_size, self.unit)
        self.rounds = config.rounds

    @property
    def unit(self) -> str:
        """What sizes count, e.g. "parameters"."""
        return self.cost.unit

    def limit(self, number: int) -> float:
        """What may remain after a round: after round t of T a share t/T of the way is done."""
        left = (self.rounds - number) / self.rounds
        return self.target + (self.source_size - self.target) * left

    def choose(self, limit: float, plan_for: Callable[[float], PruningPlan]) -> PruningPlan:
        """The main process's plan for a limit, on every process; of a latency, one whose model was timed.

        Args:
            limit: in the cost's unit.
            plan_for: makes the plan for a limit, asking `cost`.
        """
        cost = self.cost

        def decide() -> dict[str, Any]:
            timed = isinstance(cost, LatencyCost)
            plan = meet_budget(plan_for, limit, cost) if isinstance(cost, LatencyCost) else plan_for(limit)
            return {"plan": plan.to_json(), "milliseconds": cost(plan.shape) if timed else None}

        decision = on_main_process(self.accelerator, decide)
        plan = PruningPlan.from_json(decision["plan"])
        if isinstance(cost, LatencyTable):  # a process that times nothing: it learns what the main one saw
            self.cost = cost.corrected(plan.shape, decision["milliseconds"])
        return plan


def make_cost(config: PruningConfig, model: PreTrainedModel, accelerator: Accelerator) -> Cost:
    """The cost that a run's settings name: by `cost` or, where that is None, by the unit of the target."""
    name = config.cost or {"FLOPs": "flops", "ms": "latency"}.get(target_unit(config.target) or "", "parameters")
    if name == "parameters":
        return ParameterCost(model.config, type(model).__name__)
    work: dict[str, Any] = {"batch_size": config.cost_batch_size, "seq_len": config.cost_seq_len}
    if name == "flops":
        return FlopCost(model.config, **work)
    timed: list[LatencyCost] = []

    def measure() -> dict[str, Any]:
        timed.append(LatencyCost(model.config, **work, device=accelerator.device, progress=True))
        return timed[0].table.to_json()

    table = on_main_process(accelerator, measure)
    return timed[0] if timed else LatencyTable.from_json(table)
