"""The time of every shape that pruning can reach, from a few hundred timed ones.

    time = outside(h) + sum over layers of bare(h) + attention(h, a, k, v) + filters(h, f)

`outside` is embeddings and pooler, `bare` a layer without heads and filters, the other two what these add to it. Each
is a grid of measured points; between them it is linear in every width.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    """A function of widths, known at every combination of the axes' points and multilinear between them.

    Below the first point of an axis it is constant.

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
        # Selection asks for thousands of shapes that differ in one layer.
        if widths not in self._known:
            self._known[widths] = self._interpolate(widths)
        return self._known[widths]

    def _interpolate(self, widths: Sequence[int]) -> float:
        corners = [(0, 1.0)]  # places in `values` with their weights
        for axis, width in zip(self.axes, widths, strict=True):
            upper = min(bisect_right(axis, width), len(axis) - 1)
            lower = max(upper - 1, 0)
            share = min(max((width - axis[lower]) / (axis[upper] - axis[lower]), 0.0), 1.0) if upper > lower else 0.0
            ends = [(at, weight) for at, weight in ((lower, 1 - share), (upper, share)) if weight]
            corners = [(place * len(axis) + at, before * weight) for place, before in corners for at, weight in ends]
        return sum(self.values[place] * weight for place, weight in corners)


@dataclass(frozen=True)
class LatencyTable:
    """A `Cost`: the milliseconds of a shape, where nothing can be timed, for example on other processes.

    Args:
        conditions: what was timed, how and on what, as JSON.
        outside, bare, attention, filters: the parts of the time, see above.
        ratio: what the sum of the parts is multiplied by: timed over predicted at the shape that was timed last.
    """

    conditions: dict[str, Any]
    outside: Grid
    bare: Grid
    attention: Grid
    filters: Grid
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
        first, last = shape.hidden_sizes[0], shape.hidden_sizes[-1]
        total = (self.outside(first) + self.outside(last)) / 2
        layers = zip(*(getattr(shape, name) for name in DIMENSIONS.values()), strict=True)
        for h, f, a, k, v in layers:
            total += self.bare(h) + self.attention(h, a, k, v) + self.filters(h, f)
        return self.ratio * total

    def corrected(self, shape: Shape, milliseconds: float) -> LatencyTable:
        """A table that gives this time for this shape, and scales all others with it."""
        plain = replace(self, ratio=1.0)(shape)
        return replace(self, ratio=milliseconds / plain)

    def to_json(self) -> dict[str, Any]:
        values = {part: list(getattr(self, part).values) for part in PARTS}
        return {"conditions": self.conditions, "milliseconds": values, "ratio": self.ratio}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Reads what `to_json` gave.

        Raises:
            LatencyError: it is something else.
        """
        try:
            axes = {dimension: tuple(axis) for dimension, axis in data["conditions"]["axes"].items()}
            grids: dict[str, Any] = {
                part: Grid(tuple(axes[dimension] for dimension in dimensions), tuple(data["milliseconds"][part]))
                for part, dimensions in PARTS.items()
            }
            return cls(conditions=dict(data["conditions"]), ratio=float(data["ratio"]), **grids)
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
        axes[dimension] = sorted(width for width in {min(step, most), *between, most} if 0 < width <= most)
    axes["a"], axes["f"] = [0, *axes["a"]], [0, *axes["f"]]
    return {dimension: sorted(set(axis)) for dimension, axis in axes.items()}


def measure_table(timer: Timer, axes: Axes, conditions: dict[str, Any]) -> LatencyTable:
    """Times models of a few equal layers, with heads alone, filters alone or neither.

    Args:
        timer: gives the milliseconds of shapes.
        axes: the points of every dimension.
        conditions: go into the table.
    """

    def equal(h: int, f: int = 0, a: int = 0, k: int = 1, v: int = 1, layers: int = LAYERS) -> Shape:
        return Shape(*((width,) * layers for width in (h, f, a, k, v)))

    one, bare = ([equal(h, layers=layers) for h in axes["h"]] for layers in (1, LAYERS))
    heads = [equal(h, 0, a, k, v) for h, a, k, v in itertools.product(*(axes[name] for name in "hakv")) if a]
    filters = [equal(h, f) for h, f in itertools.product(axes["h"], axes["f"]) if f]
    shapes = [*one, *bare, *heads, *filters]
    times = dict(zip(shapes, timer(shapes, ROUNDS), strict=True))

    alone = {h: (times[equal(h)] - times[equal(h, layers=1)]) / (LAYERS - 1) for h in axes["h"]}

    def added(shape: Shape) -> float:
        """What heads or filters add to one bare layer."""
        return (times[shape] - times[equal(shape.hidden_sizes[0])]) / LAYERS if shape in times else 0.0

    parts: dict[str, list[float]] = {
        "outside": [times[equal(h, layers=1)] - alone[h] for h in axes["h"]],
        "bare": list(alone.values()),
        "attention": [
            added(equal(h, 0, a, k, v)) if a else 0.0
            for h, a, k, v in itertools.product(*(axes[name] for name in "hakv"))
        ],
        "filters": [added(equal(h, f)) for h, f in itertools.product(axes["h"], axes["f"])],
    }
    grids: dict[str, Any] = {}
    for part, dimensions in PARTS.items():
        points = tuple(tuple(axes[dimension]) for dimension in dimensions)
        values = torch.tensor(parts[part], dtype=torch.float64).view([len(axis) for axis in points])
        grids[part] = Grid(points, tuple(make_monotone(values).flatten().tolist()))
    return LatencyTable(conditions={**conditions, "axes": {name: list(axis) for name, axis in axes.items()}}, **grids)


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
