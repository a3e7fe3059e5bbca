"""The peak learning rate of a recovery, found by measuring the loss of a fold along Adam's first step.

Adam's first step moves every weight by the learning rate, whatever the gradient's size. So one gradient, averaged over
many examples, gives the loss after a first step at every rate for the price of a forward pass each. The rate with the
lowest loss says how far the weights can follow the gradient, and each step of a recovery may go about as far. A fold
of few examples tells that roughly, so the rate is drawn towards a typical one, less so the more the first step gains;
where it gains much, later steps go the same way, and the rate is higher than the measured one. Where it gains little,
the noise of single steps is what limits them; a long recovery has the time to come back from it, and wants higher
rates.

Where outputs of the dense model are matched, the loss is a distance from it. There training gets much further than the
best first step, and a first step that harms tells more: the rate is the one at which it doubles the distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# Rates of the first step. Lower ones win where a cut lost nothing, and then train too little in many steps.
MEASURED = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
START = 1  # in these: where the search begins
EVALUATIONS = 4  # of the fold, at most: from there to either end
TYPICAL = 1e-4  # what suits many models: the rate of a recovery that is too short for a measurement
TRUST = 2 / 3  # in the measurement, against the typical rate, on a logarithmic scale
SURE = 0.02  # of the loss: where the first step takes away so much, the measurement alone counts
MUCH, FARTHER = 0.1, 1.5  # of the loss: where it takes away so much, the rate is so many times the measured one
SHORT, LONG = 60, 300  # steps, between which the rate grows with a power of them; more were not measured
LEAST, MOST = 1e-6, 1e-3  # peaks where outputs are matched
HIGHEST = 2e-3  # the highest peak elsewhere: the first step may go further than those that follow can
FARTHEST = 10.0  # that a rate is from the next one which is tried for `doubling_rate`
FOLD = 256  # examples, at most
GRADIENT = 512  # examples, at most, unless a single batch has more
FORWARD = 1 / 3  # of a training example's time takes one that is only evaluated


@dataclass(frozen=True)
class Measurement:
    """How much is measured for a recovery, in examples over all processes.

    Attributes:
        fold: examples that weights are judged by.
        gradient: examples of the first step; 0: the recovery is too short for a measurement.
        evaluations: of the fold, beside that of the weights after the cut.
    """

    fold: int
    gradient: int
    evaluations: int

    @classmethod
    def of(cls, steps: int, batch_size: int, available: int | None = None) -> Measurement:
        """For a recovery of so many steps and examples per step, a fifth of whose time it takes at most.

        The fold has a twentieth of the recovery's examples, and at most an eighth of those that are `available` (None:
        more than enough). The gradient is that of whole batches.
        """
        total = steps * batch_size
        most = FOLD if available is None else min(FOLD, available // 8)
        fold = max(1, min(most, max(total // 20, min(16, total // 10))))
        for evaluations in (EVALUATIONS, EVALUATIONS - 1, EVALUATIONS - 2):
            batches = int((total / 5 - evaluations * fold * FORWARD) / batch_size)
            if batches > 0:
                return cls(fold, min(batches, max(1, GRADIENT // batch_size)) * batch_size, evaluations)
        return cls(fold, 0, 0)

    @property
    def cost(self) -> float:
        """In examples that are trained on."""
        return self.gradient + self.evaluations * self.fold * FORWARD


def find_learning_rate(
    loss_at: Callable[[float], float],
    evaluations: int,
    before: float,
    steps: int,
    *,
    power: float = 1.0,
    follows_dense: bool = False,
) -> float:
    """The peak rate of a recovery: best_first_step^trust * TYPICAL^(1 - trust) or `doubling_rate`, more if it is long.

    Where the first step takes away more of the loss, the best one is trusted more, and exceeded, and the number of
    steps counts less.

    Args:
        loss_at, evaluations: see `best_first_step`.
        before: the loss of the weights after the cut.
        steps: of the recovery.
        power: of the steps, by which a long recovery's rate grows; `rate_power` of `training.objective.Objective`.
        follows_dense: whether outputs of the dense model are matched; see there.
    """
    longer: float = (min(max(steps, SHORT), LONG) / SHORT) ** power
    if follows_dense:
        return min(MOST, longer * doubling_rate(loss_at, evaluations, before))
    rate, lowest = best_first_step(loss_at, evaluations)
    gained = max(0.0, before - lowest) / before if 0 < before < math.inf else 0.0
    trust = TRUST + (1 - TRUST) * min(1.0, gained / SURE)
    much = min(1.0, gained / MUCH)
    farther = 1 + (FARTHER - 1) * much
    return float(min(HIGHEST, farther * longer ** (1 - much) * rate**trust * TYPICAL ** (1 - trust)))


def doubling_rate(loss_at: Callable[[float], float], evaluations: int, before: float) -> float:
    """The rate of the first step after which the loss is twice what it was after the cut, from `LEAST` to `MOST`.

    What the loss has grown by is taken to be quadratic in the rate: each evaluation leads to the next rate.

    Args:
        loss_at, evaluations: see `best_first_step`.
        before: the loss of the weights after the cut.
    """
    rate = TYPICAL
    for _ in range(evaluations):
        grown = loss_at(rate) / before - 1 if before > 0 else math.inf
        factor = FARTHEST if grown <= FARTHEST**-2 else max(grown**-0.5, 1 / FARTHEST)
        rate = min(MOST, max(LEAST, factor * rate))
    return rate


def best_first_step(loss_at: Callable[[float], float], evaluations: int) -> tuple[float, float]:
    """The rate of the first step with the lowest loss, as if the loss had one minimum over the rates.

    The search goes up from the middle of `MEASURED`, or else down, until the loss rises. The result is the vertex of
    the parabola, over the logarithm of the rate, through the lowest loss and its neighbours; and that lowest loss.

    Args:
        loss_at: gives the loss after a first step at a rate; infinite where it is not finite.
        evaluations: how often `loss_at` is called, at most.
    """
    losses = {START: loss_at(MEASURED[START])}

    def loss(place: int) -> float:
        if place not in losses and 0 <= place < len(MEASURED) and len(losses) < evaluations:
            losses[place] = loss_at(MEASURED[place])
        return losses.get(place, math.inf)

    best = START
    for way in (1, -1):
        while loss(best + way) < losses[best]:
            best += way
        if best != START:
            break
    below, lowest, above = (losses.get(best + way, math.inf) for way in (-1, 0, 1))
    if not math.isfinite(below + above) or below + above <= 2 * lowest:
        return MEASURED[best], lowest
    shift = 0.5 * (below - above) / (below - 2 * lowest + above)  # in places, from -0.5 to 0.5
    neighbour = MEASURED[best + (1 if shift > 0 else -1)]
    return float(MEASURED[best] * (neighbour / MEASURED[best]) ** abs(shift)), lowest
