"""A pruning plan: what stays, and the shape that it makes. Frozen, checked, JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..anatomy import Axis
from ..configuration_schubert import SchuBertConfig
from ..errors import SchuBertError
from ..shape import Shape
from .units import Group

Indices = tuple[int, ...]


class PlanError(SchuBertError):
    """A plan that contradicts itself or the model that it is applied to."""


@dataclass(frozen=True)
class PruningPlan:
    """Sorted indices of the units that stay, in the numbering of the model that is cut.

    Attributes:
        source: the shape of the model that the plan cuts.
        hidden: channels of the stream (h); layer i has those below its `hidden_sizes[i]`.
        filters: per layer (f).
        heads: per layer (a).
        key_query: per layer and kept head (k): every head of a layer keeps the same number.
        value: per layer and kept head (v).
        layers: those that stay (l); () stands for all. The other fields describe all layers of the source, also those
            that go.
    """

    source: Shape
    hidden: Indices
    filters: tuple[Indices, ...]
    heads: tuple[Indices, ...]
    key_query: tuple[tuple[Indices, ...], ...]
    value: tuple[tuple[Indices, ...], ...]
    layers: Indices = ()

    def __post_init__(self) -> None:
        _check_shape(self.source)
        self._check_layers()
        layers, narrowest = len(self.source.hidden_sizes), min(self.source.hidden_sizes)
        for name in ("filters", "heads", "key_query", "value"):
            if len(getattr(self, name)) != layers:
                raise PlanError(f"`{name}` describes {len(getattr(self, name))} layers, the model has {layers}.")
        _check_indices("hidden", self.hidden, max(self.source.hidden_sizes))
        if not self.hidden or self.hidden[0] >= narrowest:
            raise PlanError(
                f"`hidden` keeps no channel of the narrowest layer, which has {narrowest}. Keep one of them."
            )
        for layer in range(layers):
            _check_indices(f"filters[{layer}]", self.filters[layer], self.source.filter_sizes[layer])
            _check_indices(f"heads[{layer}]", self.heads[layer], self.source.head_counts[layer])
            heads = len(self.heads[layer])
            _check_heads(f"key_query[{layer}]", self.key_query[layer], heads, self.source.key_query_sizes[layer])
            _check_heads(f"value[{layer}]", self.value[layer], heads, self.source.value_sizes[layer])

    def _check_layers(self) -> None:
        every = tuple(range(len(self.source.hidden_sizes)))
        object.__setattr__(self, "layers", self.layers or every)
        _check_indices("layers", self.layers, len(every))
        if self.layers != every and len(set(self.source.hidden_sizes)) > 1:
            raise PlanError(
                f"`layers` drops some of a model whose hidden sizes differ: {self.source.hidden_sizes}. Layers can be "
                "dropped where they are all the same."
            )

    @classmethod
    def from_kept(cls, source: Shape, kept: Mapping[Group, Indices]) -> PruningPlan:
        """A plan from the kept units of some groups; the others stay whole. All heads of a layer share k and v."""
        layers = range(len(source.hidden_sizes))

        def indices(dimension: str, layer: int | None, size: int) -> Indices:
            return tuple(sorted(kept.get(Group(dimension, layer), range(size))))

        kept_layers = tuple(layer for layer in layers if indices("l", layer, 1))
        if not kept_layers:
            raise PlanError("The plan keeps no layer. Keep one of them.")
        heads = tuple(indices("a", layer, source.head_counts[layer]) for layer in layers)
        return cls(
            source=source,
            hidden=indices("h", None, max(source.hidden_sizes)),
            filters=tuple(indices("f", layer, source.filter_sizes[layer]) for layer in layers),
            heads=heads,
            key_query=tuple(
                (indices("k", layer, source.key_query_sizes[layer]),) * len(heads[layer]) for layer in layers
            ),
            value=tuple((indices("v", layer, source.value_sizes[layer]),) * len(heads[layer]) for layer in layers),
            layers=kept_layers,
        )

    @property
    def shape(self) -> Shape:
        """The widths after the cut. A layer that loses all heads keeps its k and v, which then mean nothing."""
        shape = Shape(
            hidden_sizes=tuple(sum(n < width for n in self.hidden) for width in self.source.hidden_sizes),
            filter_sizes=tuple(map(len, self.filters)),
            head_counts=tuple(map(len, self.heads)),
            key_query_sizes=_head_sizes(self.key_query, self.source.key_query_sizes),
            value_sizes=_head_sizes(self.value, self.source.value_sizes),
        )
        return shape.without_layers(set(range(len(self.source.hidden_sizes))) - set(self.layers))

    def kept(self, axis: Axis) -> Tensor:
        """Indices along an axis of a tensor that stay, shape (new width,).

        The key/query and value axes run over heads first: entry n of head a is a * size + n.
        """
        if axis.kind == "hidden":
            width = self.source.hidden_sizes[axis.layer]
            entries = [n for n in self.hidden if n < width]
        elif axis.kind == "filter":
            entries = list(self.filters[axis.layer])
        else:
            sizes = self.source.key_query_sizes if axis.kind == "key_query" else self.source.value_sizes
            per_head = (self.key_query if axis.kind == "key_query" else self.value)[axis.layer]
            size = sizes[axis.layer]
            entries = [h * size + n for h, kept in zip(self.heads[axis.layer], per_head, strict=True) for n in kept]
        return torch.tensor(entries, dtype=torch.long)

    def check_source(self, config: SchuBertConfig) -> None:
        """Raises `PlanError` unless the plan was made for a model of this shape."""
        shape = Shape.of(config)
        wrong = [name for name, sizes in asdict(shape).items() if sizes != getattr(self.source, name)]
        if wrong:
            raise PlanError(
                f"The plan cuts a model with other `{'`, `'.join(wrong)}`: {getattr(self.source, wrong[0])}, but this "
                f"model has {getattr(shape, wrong[0])}. Apply it to the model that it was made for."
            )

    def to_json(self) -> dict[str, Any]:
        """The plan as plain lists and ints."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PruningPlan:
        """Reads what `to_json` gave.

        Raises:
            PlanError: fields are missing, or the indices contradict each other.
        """
        try:
            source = Shape(**{name: tuple(sizes) for name, sizes in value["source"].items()})
            return cls(
                source=source,
                hidden=tuple(value["hidden"]),
                filters=tuple(map(tuple, value["filters"])),
                heads=tuple(map(tuple, value["heads"])),
                key_query=tuple(tuple(map(tuple, heads)) for heads in value["key_query"]),
                value=tuple(tuple(map(tuple, heads)) for heads in value["value"]),
                layers=tuple(value.get("layers", ())),  # a plan of version 0.1 keeps them all
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise PlanError(f"This is no pruning plan: {error!r}. Give what `PruningPlan.to_json` wrote.") from error


def kept_channels(plans: Sequence[PruningPlan]) -> Indices:
    """The channels that are left after some plans, one after the other, in the numbering of the first one's source."""
    kept = tuple(range(max(plans[0].source.hidden_sizes)))
    for plan in plans:
        kept = tuple(kept[channel] for channel in plan.hidden)
    return kept


def kept_layers(plans: Sequence[PruningPlan]) -> Indices:
    """The layers that are left after some plans, one after the other, in the numbering of the first one's source."""
    kept = tuple(range(len(plans[0].source.hidden_sizes)))
    for plan in plans:
        kept = tuple(kept[layer] for layer in plan.layers)
    return kept


def _head_sizes(per_layer: tuple[tuple[Indices, ...], ...], source: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(len(heads[0]) if heads else size for heads, size in zip(per_layer, source, strict=True))


def _check_shape(shape: Shape) -> None:
    for name, sizes in asdict(shape).items():
        if (
            any(type(size) is not int or size < 0 for size in sizes)
            or len(sizes) != len(shape.hidden_sizes)
            or not sizes
        ):
            raise PlanError(f"`source.{name}` is {sizes}; give one int per layer, as in the model's config.")


def _check_heads(name: str, kept: tuple[Indices, ...], heads: int, size: int) -> None:
    lengths = [len(indices) for indices in kept]
    if len(lengths) != heads or len(set(lengths)) > 1:
        raise PlanError(
            f"`{name}` has lengths {lengths} for {heads} kept heads; every kept head of a layer keeps the same number."
        )
    if 0 in lengths:
        raise PlanError(f"`{name}` keeps nothing of a head that stays. Remove the head instead.")
    for indices in kept:
        _check_indices(name, indices, size)


def _check_indices(name: str, indices: Indices, size: int) -> None:
    if any(type(n) is not int for n in indices) or any(a >= b for a, b in pairwise(indices)):
        raise PlanError(f"`{name}` is {indices}; give sorted, distinct ints.")
    if indices and (indices[0] < 0 or indices[-1] >= size):
        raise PlanError(f"`{name}` has indices from {indices[0]} to {indices[-1]}; allowed is 0 to {size - 1}.")
