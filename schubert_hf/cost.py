"""What a shape costs: the objective that is shrunk, and with it the price of every unit.

A shape is the five lists of a config and its embedding size, nothing else; a cost is a function from shape to number.
Budgets, the weights beta of the penalty and the report all ask the same cost, so they cannot disagree.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Protocol, TypeVar

from transformers import PreTrainedModel

from .anatomy import Axis, AxisKind, axis_width, place_of_tensor
from .configuration_schubert import SchuBertConfig
from .errors import SchuBertError
from .shape import Shape

SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


class BudgetError(SchuBertError):
    """A target that cannot be met: no size, not below the model's own, or below the smallest that can be reached."""


GroupT = TypeVar("GroupT", bound=tuple[str, int | None])  # (dimension, layer); the layer is None for h and e


class Cost(Protocol):
    """A function from shape to cost. `unit` names what it counts."""

    unit: str

    def __call__(self, shape: Shape) -> float: ...


class ParameterCost:
    """Parameters of the whole model, embeddings and head included, tied ones once, counted off its own tensors.

    Args:
        model: a SchuBERT of any class; only the names and shapes of its parameters matter.

    Raises:
        UnknownTensorError: `anatomy.TABLE` does not describe one of them.
    """

    unit = "parameters"

    def __init__(self, model: PreTrainedModel) -> None:
        # How many numbers stand for each combination of axes: outside the layers, and in any one of them.
        self._outside: Counter[tuple[Axis, ...]] = Counter()
        of_layers: dict[int, Counter[tuple[AxisKind, ...]]] = {}
        for name, parameter in model.named_parameters():
            where = place_of_tensor(name)
            axes = where.axes(parameter.ndim)
            number = math.prod(size for size, axis in zip(parameter.shape, axes, strict=False) if axis is None)
            known = tuple(axis for axis in axes if axis is not None)
            if where.row.part == "projection":
                continue  # counted where the shape has it
            if where.layer is None:
                self._outside[known] += number
            else:
                of_layers.setdefault(where.layer, Counter())[tuple(axis.kind for axis in known)] += number
        self._layer: Counter[tuple[AxisKind, ...]] = Counter()
        for counts in of_layers.values():  # one without heads or filters lacks their tensors
            self._layer |= counts

    def __call__(self, shape: Shape) -> float:
        total = sum(
            number * math.prod(axis_width(shape, axis) for axis in axes) for axes, number in self._outside.items()
        )
        for layer in range(len(shape.hidden_sizes)):
            total += sum(
                number * math.prod(axis_width(shape, Axis(kind, layer)) for kind in kinds)
                for kinds, number in self._layer.items()
            )
        if shape.embedding_size is not None:
            total += (shape.embedding_size + 1) * shape.hidden_sizes[0]
        return float(total)


class FlopCost:
    """FLOPs of one forward pass of the encoder with its pooler: what every use of the model pays, whatever its head.

    2mnk for each product of an m x k by a k x n matrix, as `torch.utils.flop_counter` counts them. Everything but the
    shape is read from the config.
    """

    unit = "FLOPs"

    def __init__(self, config: SchuBertConfig, *, seq_len: int = 128, batch_size: int = 1) -> None:
        # A private copy: its lists are replaced at every call, unchecked, since a shape that is asked about is legal.
        self._config = copy.deepcopy(config)
        self._seq_len, self._batch_size = seq_len, batch_size

    def __call__(self, shape: Shape) -> float:
        self._config.__dict__.update(shape.fields())
        return float(self._config.flops(self._seq_len, self._batch_size))


def unit_cost(cost: Cost, shape: Shape, dimension: str, layer: int | None) -> float:
    """What one unit costs in this shape: the difference that removing it makes."""
    return cost(shape) - cost(shape.shrink(dimension, layer, 1))


def penalty_weights(cost: Cost, shape: Shape, groups: Iterable[GroupT]) -> dict[GroupT, float]:
    """beta of Algorithm 1 (Khetan & Karnin 2020): the cost of one unit, in units of the cost of one attention head.

    For BERT-base: beta_a = 1, beta_h = 0.73, beta_k = beta_v = 0.094, beta_f = 0.0078.
    """
    heads = [unit_cost(cost, shape, "a", layer) for layer, count in enumerate(shape.head_counts) if count]
    weights = {group: unit_cost(cost, shape, *group) for group in groups}
    # Without a head, or where one costs nothing, another common measure serves: only the proportions matter.
    reference = sum(heads) / max(1, len(heads)) or max(weights.values(), default=0.0) or 1.0
    return {group: weight / reference for group, weight in weights.items()}


_TARGET = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?:(?P<suffix>[KMGB]?)\s*(?P<flops>FLOPS?)?|(?P<ms>MS)|(?P<percent>%))"
)


def target_unit(target: str | float) -> str | None:
    """The unit that a target names: "ms" for "12ms", "FLOPs" for "2.5GFLOPs"; None for a mere number or fraction.

    Raises:
        BudgetError: it is no target.
    """
    match = _match_target(target)
    return "ms" if match["ms"] else "FLOPs" if match["flops"] else None


def parse_target(target: str | float, size: float, unit: str = "parameters") -> float:
    """A budget as a number: "66M", "120K" or 5_000_000 of a unit; 0.6 or "60%" of `size`; "12ms", "2.5GFLOPs".

    Raises:
        BudgetError: it is no target, it names another unit, or it is not below `size`.
    """
    match, named = _match_target(target), target_unit(target)
    if named not in (None, unit):
        raise BudgetError(
            f"`target` is {target!r}, but `cost` counts {unit}. Give a target in {unit}, or other `cost`."
        )
    number = float(match["number"])
    if match["percent"]:
        budget = number / 100 * size
    elif number <= 1 and not match["suffix"] and named is None:
        budget = number * size
    else:
        budget = number * SUFFIXES[match["suffix"] or ""]
    if not 0 < budget < size:
        raise BudgetError(
            f"`target` is {target!r}, that is {format_size(budget)} {unit}; allowed is more than 0 and less than the "
            f"model's own {format_size(size)}. Give another target."
        )
    return budget


def _match_target(target: str | float) -> re.Match[str]:
    match = _TARGET.fullmatch(str(target).strip().upper().replace("_", ""))
    if match is None or isinstance(target, bool):
        raise BudgetError(
            f'`target` is {target!r}; give a size like "66M" or a fraction like 0.6 or "60%", a time like "12ms", or '
            'work like "2.5GFLOPs".'
        )
    return match


def format_size(number: float) -> str:
    """1234567 -> "1.23M"; 8.91234 -> "8.912"."""
    for suffix in ("B", "M", "K"):
        if abs(number) >= SUFFIXES[suffix]:
            return f"{number / SUFFIXES[suffix]:.2f}{suffix}"
    return f"{number:.4g}"
