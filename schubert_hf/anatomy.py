"""THE table: which slices of which tensors one unit of h, f, a, k, v owns.

Gates, penalty, counting and surgery all read it; a new kind of tensor is a new row. An axis of a tensor runs over the
channels, filters, keys or values of one layer. A unit of the paper's letters owns

    h   channel n of every hidden axis
    f   entry n of the filter axis of its layer
    k   entry n of every head on the key/query axis of its layer
    v   entry n of every head on the value axis of its layer
    a   the whole block of one head on both axes
    l   its whole layer (a kind of ours: the paper does not prune l)

The six matrices Q, K, V, P, D, G carry the alphas (Khetan & Karnin 2020, section 3); the other rows are cut only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from transformers import PreTrainedModel

from .configuration_schubert import SchuBertConfig
from .errors import SchuBertError
from .shape import DIMENSIONS, LETTERS

# No tensor has an axis of the kind "layer": it has one entry, the layer itself.
AxisKind = Literal["hidden", "filter", "key_query", "value", "layer"]


class Axis(NamedTuple):
    """What one axis of a tensor runs over: a kind, and the layer whose width it has (-1: the last one)."""

    kind: AxisKind
    layer: int


class Group(NamedTuple):
    """Units that share a vector of alphas; `layer` is None for h, and a group of l has one unit, its layer."""

    dimension: str
    layer: int | None

    def __str__(self) -> str:
        return self.dimension if self.layer is None else f"{self.dimension}{self.layer}"


@dataclass(frozen=True)
class Row:
    """One kind of module: what the axes of its `weight` run over.

    A bias, and a LayerNorm's two vectors, have `rows` alone.

    Attributes:
        pattern: the module's name after the base model's prefix; the group is the layer.
        rows: axis 0 of the weight: outputs of a linear map.
        columns: axis 1: inputs of a linear map, widths of an embedding.
        gated: the alphas of both axes multiply this matrix.
        rows_layer, columns_layer: whose width the axis has (-1: the last one); None for the module's own layer.
    """

    pattern: str
    rows: AxisKind | None
    columns: AxisKind | None = None
    gated: bool = False
    rows_layer: int | None = None
    columns_layer: int | None = None


LAYER = r"encoder\.layer\.(\d+)\."

TABLE: tuple[Row, ...] = (
    Row(r"embeddings\.(?:word|position|token_type)_embeddings", None, "hidden", columns_layer=0),
    Row(r"embeddings\.LayerNorm", "hidden", rows_layer=0),
    Row(LAYER + r"attention\.self\.(?:query|key)", "key_query", "hidden", gated=True),  # Q, K
    Row(LAYER + r"attention\.self\.value", "value", "hidden", gated=True),  # V
    Row(LAYER + r"attention\.output\.dense", "hidden", "value", gated=True),  # P
    Row(LAYER + r"intermediate\.dense", "filter", "hidden", gated=True),  # D
    Row(LAYER + r"output\.dense", "hidden", "filter", gated=True),  # G
    Row(LAYER + r"(?:attention\.)?output\.LayerNorm", "hidden"),
    Row(r"pooler\.dense", "hidden", "hidden", rows_layer=-1, columns_layer=-1),
    # The decoder is tied to the word embeddings, so the transform writes channels of the first layer's width.
    Row(r"cls\.predictions\.transform\.dense", "hidden", "hidden", rows_layer=0, columns_layer=-1),
    Row(r"cls\.predictions\.transform\.LayerNorm", "hidden", rows_layer=0),
    Row(r"cls\.predictions\.decoder", None, "hidden", columns_layer=0),
    Row(r"cls\.predictions", None),  # the vocabulary's bias
    Row(r"cls\.seq_relationship|classifier|qa_outputs", None, "hidden", columns_layer=-1),
)


class UnknownTensorError(SchuBertError):
    """The model has a tensor that the table does not describe, so it cannot be cut."""


def find_row(module: str) -> tuple[Row, tuple[Axis | None, Axis | None]]:
    """The row of a module, with its two axes.

    Args:
        module: a module's name, with or without the base model's prefix.

    Raises:
        UnknownTensorError: no row fits.
    """
    name = module.removeprefix("bert.")
    for row in TABLE:
        if match := re.fullmatch(row.pattern, name):
            layer = int(match[1]) if match.groups() else 0
            return row, (_axis(row.rows, row.rows_layer, layer), _axis(row.columns, row.columns_layer, layer))
    raise UnknownTensorError(
        f"`{module}` is not a module of SchuBERT, so its widths are unknown and it cannot be cut. "
        "Remove it from the model, prune, and put it on the result."
    )


def tensor_axes(name: str, ndim: int) -> tuple[Axis | None, ...]:
    """The axes of a parameter, by its name (e.g. `bert.pooler.dense.weight`) and number of dimensions."""
    module, _, _ = name.rpartition(".")
    return find_row(module)[1][:ndim]


def axis_width(config: SchuBertConfig, axis: Axis) -> int:
    """How many entries an axis has; the key/query and value axes run over heads first."""
    if axis.kind == "hidden":
        return int(config.hidden_sizes[axis.layer])
    if axis.kind == "filter":
        return int(config.filter_sizes[axis.layer])
    sizes = config.key_query_sizes if axis.kind == "key_query" else config.value_sizes
    return int(config.head_counts[axis.layer] * sizes[axis.layer])


def check_tensors(model: PreTrainedModel) -> None:
    """Looks whether the table describes every tensor of a model, and whether each is as wide as the config says.

    Raises:
        UnknownTensorError: it does not, or one is not.
    """
    layers = len(model.config.hidden_sizes)
    for name, tensor in model.state_dict().items():
        for dim, axis in enumerate(tensor_axes(name, tensor.ndim)):
            if axis is None:
                continue
            width = axis_width(model.config, axis) if axis.layer < layers else 0
            if tensor.shape[dim] != width:
                raise UnknownTensorError(
                    f"`{name}` has the shape {tuple(tensor.shape)}, but by the config its axis {dim} is {width} wide. "
                    "Build the model from its config, then prune it."
                )


def find_groups(config: SchuBertConfig, dimensions: Iterable[str]) -> dict[Group, int]:
    """The groups of some dimensions, with the number of units of each; groups without units are left out.

    Args:
        config: of the model.
        dimensions: letters of h, f, a, k, v, l.

    Raises:
        ValueError: another letter; or l, where the hidden sizes of the layers differ.
    """
    groups: dict[Group, int] = {}
    for dimension in check_dimensions(dimensions):
        if dimension == "h":
            groups[Group("h", None)] = max(config.hidden_sizes)
            continue
        if dimension == "l":
            groups |= _layer_groups(config)
            continue
        for layer, size in enumerate(getattr(config, DIMENSIONS[dimension])):
            # A layer without heads has no keys and no values, whatever its config says of their size.
            if size and (dimension == "f" or config.head_counts[layer]):
                groups[Group(dimension, layer)] = size
    return groups


def check_dimensions(dimensions: Iterable[str]) -> str:
    """Letters in the table's order, each once."""
    letters = "".join(dimensions)
    if not letters or set(letters) - set(LETTERS) or len(set(letters)) < len(letters):
        raise ValueError(
            f"`dimensions` is {letters!r}; give one or more of h (hidden), f (filters), a (heads), k (keys and "
            'queries), v (values), l (whole layers), each once, e.g. "hfakv".'
        )
    return "".join(letter for letter in LETTERS if letter in letters)


def _layer_groups(config: SchuBertConfig) -> dict[Group, int]:
    if len(set(config.hidden_sizes)) > 1:  # embeddings and head would have to change with the first and last layer
        raise ValueError(
            f"`dimensions` has l, but the hidden sizes of the layers differ: {config.hidden_sizes}. Layers can be "
            "dropped where they are all the same; leave l out."
        )
    layers = len(config.hidden_sizes)
    return {Group("l", layer): 1 for layer in range(layers)} if layers > 1 else {}  # the only one stays


def _axis(kind: AxisKind | None, layer: int | None, own_layer: int) -> Axis | None:
    return None if kind is None else Axis(kind, own_layer if layer is None else layer)
