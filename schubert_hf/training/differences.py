"""How far outputs are from those of another model, and directions in which a network's curvature is probed.

Each difference D(own, wanted) is zero where the outputs agree, and so is its gradient. Its second derivative H there
is not: for random signs e, `direction(own, e)` gives r with E[r r^T] = H, so the squared gradients of the scalar
r . own are in the mean the Gauss-Newton matrix of D (for logits: the Fisher information).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, logsigmoid

TINY = 1e-12  # of a scale: outputs that never change have none


class Difference(Protocol):
    """Between two models' outputs of the same items."""

    def distance(self, own: Tensor, wanted: Tensor) -> Tensor:
        """Summed over all items, a scalar; both of shape (items, width)."""

    def signs(self, width: int) -> int:
        """How many random signs a direction takes for outputs of a width."""

    def direction(self, own: Tensor, signs: Tensor) -> Tensor:
        """r of every item, shape (items, width), from signs of shape (items, `signs(width)`)."""


@dataclass(frozen=True)
class Squared:
    """|own - wanted|^2 / scale."""

    scale: float

    def distance(self, own: Tensor, wanted: Tensor) -> Tensor:
        return (own - wanted).square().sum() / max(self.scale, TINY)

    def signs(self, width: int) -> int:
        return width

    def direction(self, own: Tensor, signs: Tensor) -> Tensor:
        return signs * math.sqrt(2 / max(self.scale, TINY))


@dataclass(frozen=True)
class Projected:
    """Mean over anchors a of ((own - wanted) . a)^2 / scale; anchors of shape (number, width)."""

    anchors: Tensor
    scale: float

    def distance(self, own: Tensor, wanted: Tensor) -> Tensor:
        along = (own - wanted) @ self.anchors.to(own).mT  # (items, anchors)
        return along.square().sum() / (len(self.anchors) * max(self.scale, TINY))

    def signs(self, width: int) -> int:
        return len(self.anchors)

    def direction(self, own: Tensor, signs: Tensor) -> Tensor:
        return signs @ self.anchors.to(own) * math.sqrt(2 / (len(self.anchors) * max(self.scale, TINY)))


@dataclass(frozen=True)
class Categorical:
    """T^2 KL(wanted || own) of softmax distributions at the temperature T."""

    temperature: float = 1.0

    def distance(self, own: Tensor, wanted: Tensor) -> Tensor:
        student, teacher = (log_softmax(x / self.temperature, dim=-1) for x in (own, wanted))
        return kl_div(student, teacher, log_target=True, reduction="sum") * self.temperature**2

    def signs(self, width: int) -> int:
        return width

    def direction(self, own: Tensor, signs: Tensor) -> Tensor:
        """sqrt(p) e - p sum(sqrt(p) e): covariance diag(p) - p p^T, without drawing rare labels."""
        p = (own / self.temperature).softmax(-1)
        spread = p.sqrt() * signs
        return spread - p * spread.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Bernoulli:
    """T^2 KL(wanted || own), summed over labels that are independent of one another, at the temperature T."""

    temperature: float = 1.0

    def distance(self, own: Tensor, wanted: Tensor) -> Tensor:
        total = torch.zeros((), device=own.device)
        for sign in (1, -1):
            student, teacher = (logsigmoid(sign * x / self.temperature) for x in (own, wanted))
            total = total + kl_div(student, teacher, log_target=True, reduction="sum")
        return total * self.temperature**2

    def signs(self, width: int) -> int:
        return width

    def direction(self, own: Tensor, signs: Tensor) -> Tensor:
        p = (own / self.temperature).sigmoid()
        return signs * (p * (1 - p)).sqrt()
