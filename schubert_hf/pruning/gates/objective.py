"""Step 3 of Algorithm 1 as the training loop sees it: the same objective, computed with gates."""

from __future__ import annotations

from torch import Tensor

from ...data.stream import Batch
from ...training.objective import Objective
from .alphas import Gates


class GatedObjective(Objective):
    """An objective whose model computes with gates; as one module, so that data-parallel training sees the alphas."""

    def __init__(self, objective: Objective, gates: Gates) -> None:
        super().__init__(objective.model)
        self.terms = objective.terms
        self.inner = objective
        self.gates = gates

    def count(self, batch: Batch) -> dict[str, int]:
        return self.inner.count(batch)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with self.gates.attached(self.model):
            result: dict[str, Tensor] = self.inner(batch)
            return result
