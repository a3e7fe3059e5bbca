"""A shape: the widths of every layer, and the letters that the paper gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from .configuration_schubert import LAYER_LISTS, SchuBertConfig

DIMENSIONS = {
    "h": "hidden_sizes",
    "f": "filter_sizes",
    "a": "head_counts",
    "k": "key_query_sizes",
    "v": "value_sizes",
}
LETTERS = (*DIMENSIONS, "l")  # l: whole layers, which have no list of their own


@dataclass(frozen=True)
class Shape:
    """The widths of every layer: h, f, a, k, v of the paper, one int per layer each."""

    hidden_sizes: tuple[int, ...]
    filter_sizes: tuple[int, ...]
    head_counts: tuple[int, ...]
    key_query_sizes: tuple[int, ...]
    value_sizes: tuple[int, ...]

    @classmethod
    def of(cls, config: SchuBertConfig) -> Shape:
        return cls(**{name: tuple(getattr(config, name)) for name in LAYER_LISTS})

    @classmethod
    def from_lists(cls, lists: Mapping[str, Sequence[int]]) -> Shape:
        """The inverse of `lists`."""
        return cls(**{name: tuple(sizes) for name, sizes in lists.items()})

    def lists(self) -> dict[str, list[int]]:
        """The shape as keyword arguments of `SchuBertConfig`."""
        return {name: list(getattr(self, name)) for name in LAYER_LISTS}

    def shrink(self, dimension: str, layer: int | None, units: int) -> Shape:
        """A shape with `units` fewer units of one dimension.

        Args:
            dimension: one of h, f, a, k, v; or l, which removes the layer.
            layer: the layer; None for h, whose units go through all layers.
        """
        if dimension == "l":
            return self.without_layers({layer} if units else ())
        name = DIMENSIONS[dimension]
        sizes = list(getattr(self, name))
        for index in range(len(sizes)) if layer is None else [layer]:
            sizes[index] -= units
        return replace(self, **{name: tuple(sizes)})

    def without_layers(self, dropped: Collection[int | None]) -> Shape:
        """The shape of the other layers."""
        kept = [layer for layer in range(len(self.hidden_sizes)) if layer not in dropped]
        return Shape(**{name: tuple(getattr(self, name)[layer] for layer in kept) for name in LAYER_LISTS})
