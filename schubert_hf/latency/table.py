"""The time of every shape that pruning can reach, from a few hundred timed ones.

    time = outside(h) + sum over layers of bare(h) + attention(h, a, k, v) + filters(h, f)

`outside` is embeddings and pooler, `bare` a layer without heads and filters, the other two what these add to it. Each
is a grid of measured points; between them it is linear in every width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..shape import DIMENSIONS, Shape
from .timing import LatencyError

# Milliseconds of shapes that are timed in turns, from the shapes and the number of rounds.
Timer = Callable[[Sequence[Shape], int], Sequence[float]]
Axes = Mapping[str, Sequence[int]]

POINTS = {"h": 5, "f": 5, "a": 3, "k": 3, "v": 3}  # widths per axis, the widest among them, without 0
PARTS = {"outside": "h", "bare": "h", "attention": "hakv", "filters": "hf"}
ROUNDS = 6
# Enough that what a layer adds is told apart from the rest. More only take longer: with 12 layers BERT-base was
# predicted no better than with 2 or 4, and with single layers, called alone, clearly worse.
LAYERS = 3


@dataclass(frozen=True)
class Grid:
    """A function of widths: multilinear between the points of the axes, constant beyond them.

    Args:
        axes: increasing widths, per dimension.
        values: the last axis runs fastest.
    """

    axes: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]
    _known: dict[tuple[int, ...], float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.values) != math.prod(map(len, self.axes)) or not all(map(math.isfinite, self.values)):
            raise LatencyError(f"A grid of {[len(axis) for axis in self.axes]} points has values that do not fit it.")

    def __call__(self, *widths: int) -> float:
        if widths not in self._known:  # selection asks for thousands of shapes that differ in one layer
            values: Any = np.reshape(self.values, [len(axis) for axis in self.axes])
            for axis, width in zip(self.axes, widths, strict=True):
                share, lower = math.modf(np.interp(width, axis, range(len(axis))))
                ends = values[int(lower)], values[min(int(lower) + 1, len(axis) - 1)]
                values = (1 - share) * ends[0] + share * ends[1]
            self._known[widths] = float(values)
        return self._known[widths]


@dataclass(frozen=True)
class LatencyTable:
    """A `Cost`: the milliseconds of a shape, where nothing can be timed, for example on other processes.

    Args:
        conditions: what was timed, how and on what, as JSON.
        grids: the parts of the time, by the names in `PARTS`.
        ratio: scales the sum of the parts: timed over predicted at the shape that was timed last.
    """

    conditions: dict[str, Any]
    grids: dict[str, Grid]
    ratio: float = 1.0

    unit = "ms"

    def __call__(self, shape: Shape) -> float:
        """Milliseconds. Less of anything never takes longer.

        Raises:
            LatencyError: a layer is wider than the table.
        """
        for dimension, name in DIMENSIONS.items():
            widest, known = max(getattr(shape, name)), self.conditions["axes"][dimension][-1]
            if widest > known:
                raise LatencyError(
                    f"`{name}` holds {widest}; the times of at most {known} are known. "
                    "Make the cost with the config that pruning begins with."
                )
        outside, bare, attention, filters = (self.grids[part] for part in PARTS)
        total = (outside(shape.hidden_sizes[0]) + outside(shape.hidden_sizes[-1])) / 2
        for h, f, a, k, v in zip(*(getattr(shape, name) for name in DIMENSIONS.values()), strict=True):
            total += bare(h) + attention(h, a, k, v) + filters(h, f)
        return self.ratio * total

    def corrected(self, shape: Shape, milliseconds: float) -> LatencyTable:
        """A table that gives this time for this shape, and scales all others with it."""
        return replace(self, ratio=milliseconds / replace(self, ratio=1.0)(shape))

    def to_json(self) -> dict[str, Any]:
        values = {part: list(grid.values) for part, grid in self.grids.items()}
        return {"conditions": self.conditions, "milliseconds": values, "ratio": self.ratio}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Reads what `to_json` gave; raises `LatencyError` if it is something else."""
        try:
            axes = {dimension: tuple(axis) for dimension, axis in data["conditions"]["axes"].items()}
            grids = {
                part: Grid(tuple(axes[dimension] for dimension in dimensions), tuple(data["milliseconds"][part]))
                for part, dimensions in PARTS.items()
            }
            return cls(dict(data["conditions"]), grids, float(data["ratio"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LatencyError(f"This is no table of latencies: {error!r}.") from error


def make_axes(shape: Shape) -> dict[str, list[int]]:
    """The widths that are timed: evenly spaced up to the shape's largest, multiples of 8 where that leaves enough."""
    axes = {}
    for dimension, name in DIMENSIONS.items():
        most, points = max(getattr(shape, name)), POINTS[dimension]
        # Kernels are made for multiples of 8; heads are counted one by one.
        step = 8 if dimension != "a" and most >= 8 * points else 1
        between = {round(most * n / (points - 1) / step) * step for n in range(1, points - 1)}
        widths = sorted(width for width in {min(step, most), *between, most} if 0 < width <= most)
        axes[dimension] = [0, *widths] if dimension in "af" else widths
    return axes


def measure_table(timer: Timer, axes: Axes, conditions: dict[str, Any]) -> LatencyTable:
    """Times models of a few equal layers, with heads alone, filters alone or neither.

    Args:
        timer: gives the milliseconds of shapes.
        axes: the points of every dimension.
        conditions: go into the table.
    """

    def equal(h: int, f: int = 0, a: int = 0, k: int = 1, v: int = 1, layers: int = LAYERS) -> Shape:
        return Shape(*((width,) * layers for width in (h, f, a, k, v)))

    points = {part: [tuple(axes[dimension]) for dimension in dimensions] for part, dimensions in PARTS.items()}
    shapes = {
        "outside": [equal(h, layers=1) for h in axes["h"]],
        "bare": [equal(h) for h in axes["h"]],
        "attention": [equal(h, 0, a, k, v) if a else equal(h) for h, a, k, v in product(*points["attention"])],
        "filters": [equal(h, f) for h, f in product(*points["filters"])],
    }
    timed = list(dict.fromkeys(shape for part in shapes.values() for shape in part))
    times = dict(zip(timed, timer(timed, ROUNDS), strict=True))
    one, bare, heads, filters = (
        torch.tensor([times[shape] for shape in shapes[part]], dtype=torch.float64).view(*map(len, points[part]))
        for part in PARTS
    )
    layer = (bare - one) / (LAYERS - 1)
    # Heads and filters: what they add to one bare layer.
    values = one - layer, layer, (heads - bare.view(-1, 1, 1, 1)) / LAYERS, (filters - bare.view(-1, 1)) / LAYERS
    grids = {
        part: Grid(tuple(points[part]), tuple(make_monotone(x).flatten().tolist()))
        for part, x in zip(PARTS, values, strict=True)
    }
    return LatencyTable({**conditions, "axes": {name: list(axis) for name, axis in axes.items()}}, grids)


def make_monotone(values: Tensor) -> Tensor:
    """The nearest thing that decreases along no axis and is nowhere negative; what is so already stays as it is.

    Halfway between the running maximum from below and the running minimum from above: the maximum alone would keep
    every time that came out too long, and call all larger shapes as slow.
    """
    upper = lower = values.clamp(min=0)
    for dim in range(values.ndim):
        upper = upper.cummax(dim).values
        lower = lower.flip(dim).cummin(dim).values.flip(dim)
    return (upper + lower) / 2
