"""Least squares from streamed sums, for linear maps and for the scale and shift of a LayerNorm.

Products are made where the data is, sums and solutions in double precision on the CPU. What is held does not grow with
the number of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from .precision import Reduce, exact, summed, widen

RIDGE = 0.1  # share of an input's variance, where no fold says what is best
RIDGES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
NORM_RIDGE = 1e-2  # a scale and a shift per channel are never short of data
FLOOR = 1e-12  # of a variance: an input that never changes keeps its weight


class Correction(NamedTuple):
    """What is added to a linear map: `weight` of shape (outputs, width), `bias` of shape (outputs,)."""

    weight: Tensor
    bias: Tensor
    ridge: float


class Regression:
    """Corrects linear maps that read the same inputs.

    Solves min over C, c of E |C x + c - e|^2 + |C D|^2 with D^2 = ridge Var(x), for inputs x and what outputs lack,
    e. The ridge of each map is the one of `RIDGES` whose solution on the rest is best on the fold; the solution is
    then that of all tokens.

    Args:
        width: of the inputs.
        outputs: of each map.
        reduce: sums a tensor over processes that see different tokens.
    """

    def __init__(self, width: int, outputs: Sequence[int], reduce: Reduce | None = None) -> None:
        self.width, self.outputs, self.reduce = width, list(outputs), reduce
        shape = (width + 1 + sum(outputs), width + 1)
        self.fitted, self.fold = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))

    def add(self, inputs: Tensor, lack: Tensor, *, fold: bool) -> None:
        """Counts tokens in: inputs of shape (tokens, width), and what the maps' outputs lack, (tokens, outputs)."""
        own = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
        sums = self.fold if fold else self.fitted
        sums += exact(torch.cat([own, lack], dim=1).mT @ own)

    def solve(self, ridge: float | None = None) -> list[Correction]:
        """One correction per map; `ridge`: the same for all, which nothing chooses. To be asked once."""
        fitted, fold = summed(self.fitted, self.reduce), summed(self.fold, self.reduce)
        number = float(fold[self.width, self.width])
        if ridge is not None or not number:
            chosen = [RIDGE if ridge is None else ridge] * len(self.outputs)
        else:
            chosen = self._best_on(fold, fitted)
        everything, solved = fitted.add_(fold), {}  # in place, as both are large
        for one in dict.fromkeys(chosen):
            solved[one] = self._solutions(everything, one)
        return [solved[one][number] for number, one in enumerate(chosen)]

    def _best_on(self, fold: Tensor, fitted: Tensor) -> list[float]:
        """The ridge of each map: from `RIDGE` both ways, as long as that helps any of them."""
        gram, lack = fold[: self.width + 1], torch.split(fold[self.width + 1 :], self.outputs)

        def errors(index: int) -> Tensor:  # (maps,)
            found = self._solutions(fitted, RIDGES[index])
            return torch.tensor([_error(one, gram, rows) for one, rows in zip(found, lack, strict=True)])

        middle = RIDGES.index(RIDGE)
        known = {middle: errors(middle)}
        for way in (range(middle - 1, -1, -1), range(middle + 1, len(RIDGES))):
            last = known[middle]
            for index in way:
                known[index] = errors(index)
                if not bool((known[index] < last).any()):
                    break
                last = known[index]
        order = sorted(known)
        best = torch.stack([known[index] for index in order]).argmin(0)
        return [RIDGES[order[int(number)]] for number in best]

    def _solutions(self, sums: Tensor, ridge: float) -> list[Correction]:
        width = self.width
        number = sums[width, width].clamp(min=1)
        mean, lack = sums[width, :width] / number, sums[width + 1 :, width] / number
        covariance = (sums[:width, :width] / number).addr_(mean, mean, alpha=-1)  # large: changed in place
        shared = (sums[width + 1 :, :width] / number).addr_(lack, mean, alpha=-1)  # (outputs, width)
        variance = covariance.diagonal().clamp(min=0)
        covariance.diagonal().add_(ridge * variance + 1e-8 * variance.mean() + FLOOR)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):  # rounding of single-precision products can leave it indefinite where the ridge is tiny
            weight = torch.linalg.solve(covariance, shared.mT).mT
        else:
            del covariance
            weight = torch.cholesky_solve(shared.mT, factor).mT
        bias = lack - weight @ mean
        parts = zip(torch.split(weight, self.outputs), torch.split(bias, self.outputs), strict=True)
        return [Correction(one, shift, ridge) for one, shift in parts]


def _error(correction: Correction, gram: Tensor, lack: Tensor) -> float:
    """Sum of |C x + c - e|^2 less that of |e|^2, from the sums of x x^T and e x^T, each x with a 1 behind it."""
    both = torch.cat([correction.weight, correction.bias[:, None]], dim=1)
    return float(((both @ gram - 2 * lack) * both).sum())


class NormRegression:
    """Scale and shift of a LayerNorm, channel by channel, towards targets; the old scale is held a little."""

    def __init__(self, norm: nn.LayerNorm, reduce: Reduce | None = None) -> None:
        self.norm, self.reduce = norm, reduce
        self.sums = torch.zeros(5, norm.weight.shape[0], dtype=torch.float64)

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Counts tokens in: inputs and targets of shape (tokens, channels)."""
        z = widen(layer_norm(inputs, (inputs.shape[-1],), eps=self.norm.eps))
        y = widen(targets)
        rows = [torch.ones_like(z).sum(0), z.sum(0), y.sum(0), (z * z).sum(0), (z * y).sum(0)]
        self.sums += exact(torch.stack(rows))

    def apply(self) -> None:
        """Writes the solution into the LayerNorm."""
        number, z, y, zz, zy = summed(self.sums, self.reduce)
        variance = (zz / number - (z / number).square()).clamp(min=0)
        held = NORM_RIDGE * variance + 1e-8
        scale = (zy / number - z * y / number.square() + held * exact(self.norm.weight)) / (variance + held)
        self.norm.weight.copy_(scale)
        self.norm.bias.copy_(y / number - scale * z / number)
