"""What a training run has to say about itself: evaluations, losses since the last one, and seconds."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from ..run.session import Part
from .step import StepResult


class History(Part):
    """A part of a session; interruptions do not count.

    Attributes:
        evaluations: what `add` was given, each with its step, oldest first.
    """

    def __init__(self) -> None:
        self.evaluations: list[dict[str, Any]] = []
        self._recent: list[dict[str, float]] = []  # since the last evaluation
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def note(self, result: StepResult) -> None:
        """Takes down the losses of one step."""
        self._recent.append({**result.losses, "loss": result.loss})

    def means(self) -> dict[str, float]:
        """Mean training losses since the last evaluation, by term and in all; empty without a step."""
        count = len(self._recent)
        return {name: sum(losses[name] for losses in self._recent) / count for name in (self._recent or [{}])[0]}

    def add(self, step: int, **values: Any) -> None:
        """Adds an evaluation after `step` steps."""
        self.evaluations.append({"step": step, **values})
        self._recent = []

    def state(self) -> dict[str, Any]:
        return {"evaluations": self.evaluations, "recent": self._recent, "seconds": self.seconds}

    def load_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.evaluations, self._recent = state["evaluations"], state["recent"]
        self._began = time.monotonic() - state["seconds"]
