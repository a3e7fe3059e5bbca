"""Units and their groups: what can be removed, and what shares a vector of alphas.

A unit of the paper's letters owns

    h   channel n of every hidden axis
    f   entry n of the filter axis of its layer
    k   entry n of every head on the key/query axis of its layer
    v   entry n of every head on the value axis of its layer
    a   the whole block of one head on both axes
    l   its whole layer (a kind of ours: the paper does not prune l)
    e   entry n of the embeddings, of what projects them, and of what the decoder reads (ours, too)

Which tensors have these axes is in `anatomy.TABLE`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..configuration_schubert import SchuBertConfig
from ..errors import SchuBertError
from ..shape import DIMENSIONS, LETTERS


class DimensionsError(SchuBertError):
    """Letters that name no dimensions, or dimensions that this model cannot be pruned in."""


class Group(NamedTuple):
    """Units that share a vector of alphas; `layer` is None for h and e, a group of l has one unit, its layer."""

    dimension: str
    layer: int | None

    def __str__(self) -> str:
        return self.dimension if self.layer is None else f"{self.dimension}{self.layer}"


STREAM, EMBEDDINGS = Group("h", None), Group("e", None)


def find_groups(config: SchuBertConfig, dimensions: Iterable[str]) -> dict[Group, int]:
    """The groups of some dimensions, with the number of units of each; groups without units are left out.

    Raises:
        DimensionsError: a letter that is none of h, f, a, k, v, l, e; or l, where the layers' hidden sizes differ.
    """
    groups: dict[Group, int] = {}
    for dimension in check_dimensions(dimensions):
        if dimension == "h":
            groups[Group("h", None)] = max(config.hidden_sizes)
        elif dimension == "l":
            groups |= _layer_groups(config)
        elif dimension == "e":  # without a projection the embeddings are as wide as the stream
            groups |= {Group("e", None): config.embedding_size} if config.project_embeddings else {}
        else:  # a layer without heads has no keys and no values, whatever its config says of their size
            sizes = enumerate(getattr(config, DIMENSIONS[dimension]))
            has = config.filter_sizes if dimension == "f" else config.head_counts
            groups |= {Group(dimension, layer): size for layer, size in sizes if size and has[layer]}
    return groups


def check_dimensions(dimensions: Iterable[str]) -> str:
    """Letters in the table's order, each once; raises `DimensionsError` for others."""
    letters = "".join(dimensions)
    if not letters or set(letters) - set(LETTERS) or len(set(letters)) < len(letters):
        raise DimensionsError(
            f"`dimensions` is {letters!r}; give one or more of h (hidden), f (filters), a (heads), k (keys and "
            'queries), v (values), l (whole layers), e (embedding size), each once, e.g. "hfakv".'
        )
    return "".join(letter for letter in LETTERS if letter in letters)


def _layer_groups(config: SchuBertConfig) -> dict[Group, int]:
    if len(set(config.hidden_sizes)) > 1:  # embeddings and head would have to change with the first and last layer
        raise DimensionsError(
            f"`dimensions` has l, but the hidden sizes of the layers differ: {config.hidden_sizes}. Layers can be "
            "dropped where they are all the same; leave l out."
        )
    depth = len(config.hidden_sizes)
    return {Group("l", layer): 1 for layer in range(depth)} if depth > 1 else {}  # the only one stays
