"""Training as its user can watch it: an accelerator and an objective that tell of every step and every batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from schubert_hf.training.objective import PretrainingObjective


class Step(NamedTuple):
    """A training step whose gradients are there, before the weights change."""

    taken: int  # how many came before it, in all phases
    number: int  # in its phase, from 0: the steps that its optimizer has taken
    phase: str  # what is trained: "alphas" or "weights"
    rate: float
    micro_batches: int


class WatchedAccelerator(Accelerator):
    """Calls `at` with every step; the gradients are multiplied with the number that it returns, if any."""

    def __init__(self, at: Callable[[Step], float | None] = lambda _: None, **options: Any) -> None:
        super().__init__(cpu=True, **options)
        self.at, self.steps, self._micro_batches = at, list[Step](), 0

    def prepare(self, *parts: Any, **options: Any) -> Any:
        self.objective, self.optimizer = super().prepare(*parts, **options)
        return self.objective, self.optimizer

    def backward(self, loss: torch.Tensor, **options: Any) -> None:
        self._micro_batches += 1
        super().backward(loss, **options)

    def clip_grad_norm_(self, parameters: list[torch.nn.Parameter], *limits: Any) -> torch.Tensor:
        number = max((int(state["step"]) for state in self.optimizer.state.values()), default=0)
        phase = "weights" if any(p.requires_grad for p in self.objective.model.parameters()) else "alphas"
        rate = self.optimizer.param_groups[0]["lr"]
        self.steps.append(Step(len(self.steps), number, phase, rate, self._micro_batches))
        self._micro_batches = 0
        factor = self.at(self.steps[-1])
        for parameter in parameters if factor is not None else ():
            if parameter.grad is not None:
                parameter.grad *= factor
        return super().clip_grad_norm_(parameters, *limits)


def dying_at(*taken: int) -> WatchedAccelerator:
    """A machine that dies in these steps, counted over all phases."""

    def die(step: Step) -> None:
        if step.taken in taken:
            raise KeyboardInterrupt

    return WatchedAccelerator(die)


def spoiling(times: int, *, number: int, phase: str = "weights") -> WatchedAccelerator:
    """Makes the gradients of a phase's step NaN, the first `times` times that it is taken."""
    left = [times]

    def spoil(step: Step) -> float | None:
        if (step.number, step.phase) != (number, phase) or not left[0]:
            return None
        left[0] -= 1
        return float("nan")

    return WatchedAccelerator(spoil)


class WatchedObjective(PretrainingObjective):
    """Calls `read` with every batch before its own model reads it, and with whether it is trained on."""

    def __init__(self, model: Any, read: Callable[[dict[str, torch.Tensor], bool], None]) -> None:
        super().__init__(model)
        self.read = read

    def predict(self, batch: Any, model: Any = None, **options: Any) -> Any:
        if model is None:
            self.read(batch, self.training and torch.is_grad_enabled())
        return super().predict(batch, model, **options)
