"""A shape: the widths of every layer, and the letters that the paper gives them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .configuration_schubert import LAYER_LISTS, SchuBertConfig

DIMENSIONS = {
    "h": "hidden_sizes",
    "f": "filter_sizes",
    "a": "head_counts",
    "k": "key_query_sizes",
    "v": "value_sizes",
}
LETTERS = (*DIMENSIONS, "l", "e")  # whole layers, and the embedding size, have no list of their own


@dataclass(frozen=True)
class Shape:
    """The widths of every layer, h, f, a, k, v of the paper, one int per layer each; and e, the embedding size.

    `embedding_size` is None where no projection leads from the embeddings to the first layer, which has their width.
    """

    hidden_sizes: tuple[int, ...]
    filter_sizes: tuple[int, ...]
    head_counts: tuple[int, ...]
    key_query_sizes: tuple[int, ...]
    value_sizes: tuple[int, ...]
    embedding_size: int | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, config: SchuBertConfig) -> Shape:
        size = config.embedding_size if config.project_embeddings else None
        return cls(**{name: tuple(getattr(config, name)) for name in LAYER_LISTS}, embedding_size=size)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shape:
        """Reads what `dataclasses.asdict` made; records of version 0.1 know no embedding size."""
        return cls(**{name: tuple(value[name]) for name in LAYER_LISTS}, embedding_size=value.get("embedding_size"))

    def lists(self) -> dict[str, list[int]]:
        """The widths of the layers, as new lists."""
        return {name: list(getattr(self, name)) for name in LAYER_LISTS}

    def fields(self) -> dict[str, Any]:
        """The shape as fields of a `SchuBertConfig`, in an order in which they can be assigned."""
        size = self.embedding_size
        return {
            "project_embeddings": size is not None,
            **self.lists(),
            "embedding_size": self.hidden_sizes[0] if size is None else size,
        }

    def shrink(self, dimension: str, layer: int | None, units: int) -> Shape:
        """A shape with `units` fewer units of one dimension.

        Args:
            dimension: one of h, f, a, k, v, e; or l, which removes the layer.
            layer: the layer; None for h, whose units go through all layers, and for e.
        """
        if dimension == "l":
            return self.without_layers({layer} if units else ())
        if dimension == "e":
            return replace(self, embedding_size=(self.embedding_size or self.hidden_sizes[0]) - units)
        name = DIMENSIONS[dimension]
        sizes = list(getattr(self, name))
        for index in range(len(sizes)) if layer is None else [layer]:
            sizes[index] -= units
        return Shape(**{**vars(self), name: tuple(sizes)})

    def without_layers(self, dropped: Collection[int | None]) -> Shape:
        """The shape of the other layers."""
        kept = [layer for layer in range(len(self.hidden_sizes)) if layer not in dropped]
        lists = (tuple(getattr(self, name)[layer] for layer in kept) for name in LAYER_LISTS)
        return Shape(*lists, embedding_size=self.embedding_size)


def with_projection(config: SchuBertConfig) -> SchuBertConfig:
    """A copy of a config with projected embeddings, as wide as they are."""
    return with_shape(config, replace(Shape.of(config), embedding_size=config.embedding_size))


def with_shape(config: SchuBertConfig, shape: Shape) -> SchuBertConfig:
    """A copy of a config in another shape."""
    copied = copy.deepcopy(config)
    for name, value in shape.fields().items():
        setattr(copied, name, value)
    return copied
