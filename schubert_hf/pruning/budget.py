"""What must remain, round by round, and the cost that counts it; decided by the main process for all of them."""

from __future__ import annotations

from collections.abc import Callable

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from ..cost import Cost, FlopCost, ParameterCost, Shape, parse_target, target_unit
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
    """

    def __init__(self, config: PruningConfig, model: PreTrainedModel, accelerator: Accelerator) -> None:
        self.cost = make_cost(config, model)
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
        """The main process's plan for a limit, on every process.

        Args:
            limit: in the cost's unit.
            plan_for: makes the plan for a limit.
        """
        shared = [plan_for(limit).to_json()]
        broadcast_object_list(shared)
        return PruningPlan.from_json(shared[0])


def make_cost(config: PruningConfig, model: PreTrainedModel) -> Cost:
    """The cost that a run's settings name: by `cost` or, where that is None, by the unit of the target."""
    name = config.cost or {"FLOPs": "flops", "ms": "latency"}.get(target_unit(config.target) or "", "parameters")
    if name == "flops":
        return FlopCost(model.config, seq_len=config.cost_seq_len, batch_size=config.cost_batch_size)
    return ParameterCost(model.config, type(model).__name__)
