"""How far a pruning run has come: the part of its session that is its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from ..run.session import Part
from .plan import PruningPlan
from .result import RoundRecord


@dataclass
class OpenRound:
    """The current round.

    Attributes:
        size_before: in the cost's unit.
        before: held-out losses and accuracies.
        after_cut: the same; None before the cut.
        alphas: see `RoundRecord`.
        seconds: by phase.
    """

    size_before: float
    before: dict[str, float]
    after_cut: dict[str, float] | None = None
    alphas: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Progress(Part):
    """Rounds and plans so far.

    Attributes:
        records: one per finished round.
        plans: one per round that has been cut.
        open: the current round; None between two.
    """

    records: list[RoundRecord] = field(default_factory=list)
    plans: list[PruningPlan] = field(default_factory=list)
    open: OpenRound | None = None

    def close(self, **rest: Any) -> None:
        """Turns the current round into a record.

        Args:
            rest: fields of `RoundRecord` that are known at the end of a round.
        """
        assert self.open is not None
        self.records.append(RoundRecord(**{**vars(self.open), **rest}))
        self.open = None

    def state(self) -> dict[str, Any]:
        return {
            "rounds": [record.to_json() for record in self.records],
            "plans": [plan.to_json() for plan in self.plans],
            "open": None if self.open is None else asdict(self.open),
        }

    def load_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.records = [RoundRecord.from_json(record) for record in state["rounds"]]
        self.plans = [PruningPlan.from_json(plan) for plan in state["plans"]]
        self.open = None if state["open"] is None else OpenRound(**state["open"])
