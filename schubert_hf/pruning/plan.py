"""A pruning plan: what stays, and the shape that it makes. Frozen, checked, JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from ..anatomy import Axis
from ..configuration_schubert import SchuBertConfig
from ..errors import SchuBertError
from ..shape import DIMENSIONS, Shape
from .units import Group

Indices = tuple[int, ...]
# The fields that have an entry per layer, and the sizes of the source that bound its indices.
PER_LAYER = {"filters": "filter_sizes", "heads": "head_counts", "key_query": "key_query_sizes", "value": "value_sizes"}


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
        embedding: entries of projected embeddings (e); () stands for all.
    """

    source: Shape
    hidden: Indices
    filters: tuple[Indices, ...]
    heads: tuple[Indices, ...]
    key_query: tuple[tuple[Indices, ...], ...]
    value: tuple[tuple[Indices, ...], ...]
    layers: Indices = ()
    embedding: Indices = ()

    def __post_init__(self) -> None:
        _check_shape(self.source)
        widths = self.source.hidden_sizes
        every = tuple(range(len(widths)))
        object.__setattr__(self, "layers", self.layers or every)
        _check_indices("layers", self.layers, len(every))
        entries = self.source.embedding_size or 0
        object.__setattr__(self, "embedding", self.embedding or tuple(range(entries)))
        _check_indices("embedding", self.embedding, entries)
        if self.layers != every and len(set(widths)) > 1:
            raise PlanError(
                f"`layers` drops some of a model whose hidden sizes differ: {widths}. Layers can be "
                "dropped where they are all the same."
            )
        _check_indices("hidden", self.hidden, max(widths))
        if not self.hidden or self.hidden[0] >= min(widths):
            raise PlanError(
                f"`hidden` keeps no channel of the narrowest layer, which has {min(widths)}. Keep one of them."
            )
        for name, sizes in PER_LAYER.items():
            kept = getattr(self, name)
            if len(kept) != len(every):
                raise PlanError(f"`{name}` describes {len(kept)} layers, the model has {len(every)}.")
            for layer, size in enumerate(getattr(self.source, sizes)):
                if name in ("filters", "heads"):
                    _check_indices(f"{name}[{layer}]", kept[layer], size)
                else:
                    _check_heads(f"{name}[{layer}]", kept[layer], len(self.heads[layer]), size)

    @classmethod
    def from_kept(cls, source: Shape, kept: Mapping[Group, Indices]) -> PruningPlan:
        """A plan from the kept units of some groups; the others stay whole. All heads of a layer share k and v."""

        def indices(dimension: str, layer: int | None, size: int) -> Indices:
            return tuple(sorted(kept.get(Group(dimension, layer), range(size))))

        layers = tuple(layer for layer in range(len(source.hidden_sizes)) if indices("l", layer, 1))
        if not layers:
            raise PlanError("The plan keeps no layer. Keep one of them.")
        filters, heads, key_query, value = (
            [indices(letter, layer, size) for layer, size in enumerate(getattr(source, DIMENSIONS[letter]))]
            for letter in "fakv"
        )
        return cls(
            source=source,
            hidden=indices("h", None, max(source.hidden_sizes)),
            filters=tuple(filters),
            heads=tuple(heads),
            key_query=tuple((units,) * len(own) for units, own in zip(key_query, heads, strict=True)),
            value=tuple((units,) * len(own) for units, own in zip(value, heads, strict=True)),
            layers=layers,
            embedding=indices("e", None, source.embedding_size or 0),
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
            embedding_size=None if self.source.embedding_size is None else len(self.embedding),
        )
        return shape.without_layers(set(range(len(self.source.hidden_sizes))) - set(self.layers))

    def kept(self, axis: Axis) -> Tensor:
        """Indices along an axis of a tensor that stay, shape (new width,).

        The key/query and value axes run over heads first: entry n of head a is a * size + n.
        """
        if axis.kind == "embedding" and self.source.embedding_size is not None:
            entries = list(self.embedding)
        elif axis.kind in ("hidden", "embedding"):
            width = self.source.hidden_sizes[0 if axis.kind == "embedding" else axis.layer]
            entries = [n for n in self.hidden if n < width]
        elif axis.kind == "filter":
            entries = list(self.filters[axis.layer])
        else:
            size = getattr(self.source, PER_LAYER[axis.kind])[axis.layer]
            heads = zip(self.heads[axis.layer], getattr(self, axis.kind)[axis.layer], strict=True)
            entries = [head * size + n for head, kept in heads for n in kept]
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
            source = Shape.from_json(value["source"])
            kept = {name: _tuples(value[name]) for name in ("hidden", *PER_LAYER)}
            later = {name: tuple(value.get(name, ())) for name in ("layers", "embedding")}  # not in version 0.1
            return cls(source=source, **kept, **later)
        except (AttributeError, KeyError, TypeError) as error:
            raise PlanError(f"This is no pruning plan: {error!r}. Give what `PruningPlan.to_json` wrote.") from error


def kept_after(plans: Sequence[PruningPlan], name: Literal["hidden", "layers"]) -> Indices:
    """The channels or layers that are left after some plans, in the numbering of the first one's source."""
    kept: Indices = getattr(plans[0], name)
    for plan in plans[1:]:
        kept = tuple(kept[n] for n in getattr(plan, name))
    return kept


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _head_sizes(per_layer: tuple[tuple[Indices, ...], ...], source: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(len(heads[0]) if heads else size for heads, size in zip(per_layer, source, strict=True))


def _check_shape(shape: Shape) -> None:
    if type(shape.embedding_size) not in (int, type(None)):
        raise PlanError(f"`source.embedding_size` is {shape.embedding_size!r}; give an int, or None.")
    for name, sizes in shape.lists().items():
        whole = all(type(size) is int and size >= 0 for size in sizes)
        if not whole or not sizes or len(sizes) != len(shape.hidden_sizes):
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
