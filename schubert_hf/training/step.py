"""What is known of one step of training, and the error of one that cannot be taken."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SchuBertError


@dataclass(frozen=True)
class StepResult:
    """One finished step."""

    step: int  # from 0
    losses: dict[str, float]  # means over the step's global batch, one per term
    accuracies: dict[str, float]  # the share of right predictions, for the terms that are classifications
    penalty: float  # added to the loss
    grad_norm: float  # before clipping
    learning_rate: float

    @property
    def loss(self) -> float:
        return sum(self.losses.values())

    def to_log(self) -> dict[str, float]:
        """All of it by name, for a tracker."""
        return {
            "loss": self.loss,
            **{f"loss_{term}": value for term, value in self.losses.items()},
            **{f"accuracy_{term}": value for term, value in self.accuracies.items()},
            "penalty": self.penalty,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
        }


class NonFiniteLossError(SchuBertError, RuntimeError):
    """The loss or the gradient became NaN or infinite; the weights are those before the step."""
