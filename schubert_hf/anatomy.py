"""Where everything is in the model: THE place that knows its projections, norms, embeddings and heads.

Counting, gates, scores, basis, restoration and surgery all walk it; no other file names a submodule. `TABLE` says, for
each kind of module, what the axes of its tensors run over, so who writes an axis and who reads it; a new head is one
new row. `layers` gives each layer as two sublayers of the same form:

    x -> inputs (Q, K, V; or D) -> inner (attention; or activation) -> output (P; or G) -> + x -> LayerNorm

The six matrices Q, K, V, P, D, G carry the alphas (Khetan & Karnin 2020, section 3), and so does the projection of
the embeddings, where there is one; the other modules are cut only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from .configuration_schubert import SchuBertConfig
from .errors import SchuBertError
from .modeling_schubert import resize_stream
from .shape import Shape

# No tensor has an axis of the kind "layer": it has one entry, the layer itself.
AxisKind = Literal["embedding", "hidden", "filter", "key_query", "value", "layer"]
# What a module outside the layers reads: the last layer's stream, its first token, the pooler's output, or the output
# of the masked-LM transform. Where a model has no pooler, a head of the kind "pooler" reads the stream.
Source = Literal["stream", "first", "pooler", "transform"]
_LAYER = r"encoder\.layer\.(\d+)"


class UnknownTensorError(SchuBertError):
    """The model has a tensor that the table does not describe, so it cannot be cut."""


class Axis(NamedTuple):
    """What one axis of a tensor runs over: a kind, and the layer whose width it has (-1: the last one).

    An axis of the kind "embedding" has no layer. Without a projection it is the first layer's "hidden" axis.
    """

    kind: AxisKind
    layer: int


@dataclass(frozen=True)
class Row:
    """One kind of module: what the axes of its `weight` run over. A bias and a LayerNorm's vectors have `rows` alone.

    Attributes:
        part: what the module is.
        pattern: its name after the base model's prefix; the group in it is the layer.
        rows: axis 0 of the weight: the outputs of a linear map.
        columns: axis 1: the inputs of a linear map, or the width of an embedding.
        gated: the alphas of both axes multiply this matrix.
        rows_layer, columns_layer: outside the layers, the layer whose width the axis has (-1: the last one).
        reads: for a linear map outside the layers, what its input is.
    """

    part: str
    pattern: str
    rows: AxisKind | None
    columns: AxisKind | None = None
    gated: bool = False
    rows_layer: int = -1
    columns_layer: int = -1
    reads: Source | None = None


TABLE: tuple[Row, ...] = (
    Row("embedding", r"embeddings\.(?:word|position|token_type)_embeddings", None, "embedding"),
    Row("norm", r"embeddings\.LayerNorm", "embedding"),
    Row("projection", r"embeddings_project", "hidden", "embedding", gated=True, rows_layer=0),
    Row("query", _LAYER + r"\.attention\.self\.query", "key_query", "hidden", gated=True),  # Q
    Row("key", _LAYER + r"\.attention\.self\.key", "key_query", "hidden", gated=True),  # K
    Row("value", _LAYER + r"\.attention\.self\.value", "value", "hidden", gated=True),  # V
    Row("output", _LAYER + r"\.attention\.output\.dense", "hidden", "value", gated=True),  # P
    Row("filter", _LAYER + r"\.intermediate\.dense", "filter", "hidden", gated=True),  # D
    Row("output", _LAYER + r"\.output\.dense", "hidden", "filter", gated=True),  # G
    Row("norm", _LAYER + r"\.(?:attention\.)?output\.LayerNorm", "hidden"),
    Row("pooler", r"pooler\.dense", "hidden", "hidden", reads="first"),
    # The decoder is tied to the word embeddings, so the transform writes as they do.
    Row("transform", r"cls\.predictions\.transform\.dense", "embedding", "hidden", reads="stream"),
    Row("norm", r"cls\.predictions\.transform\.LayerNorm", "embedding"),
    Row("head", r"cls\.predictions\.decoder", None, "embedding", reads="transform"),
    Row("bias", r"cls\.predictions", None),  # of the vocabulary
    Row("head", r"cls\.seq_relationship|classifier", None, "hidden", reads="pooler"),
    Row("head", r"qa_outputs", None, "hidden", reads="stream"),
)


@dataclass(frozen=True)
class Place:
    """A module's row, its axes and its layer (None outside the layers)."""

    row: Row
    rows: Axis | None
    columns: Axis | None
    layer: int | None

    def axes(self, ndim: int) -> tuple[Axis | None, ...]:
        """Of a parameter of the module with so many dimensions."""
        return (self.rows, self.columns)[:ndim]


def place(module: str) -> Place:
    """The place of a module, by its name with or without the base model's prefix.

    Raises:
        UnknownTensorError: no row fits.
    """
    for row in TABLE:
        if match := re.fullmatch(row.pattern, module.removeprefix("bert.")):
            layer = int(match[1]) if match.groups() else None
            rows, columns = (
                None if kind is None else Axis(kind, outside if layer is None else layer)
                for kind, outside in ((row.rows, row.rows_layer), (row.columns, row.columns_layer))
            )
            return Place(row, rows, columns, layer)
    raise UnknownTensorError(
        f"`{module}` is not a module of SchuBERT, so its widths are unknown and it cannot be cut. "
        "Remove it from the model, prune, and put it on the result."
    )


def place_of_tensor(name: str) -> Place:
    """The place of the module that owns a parameter, e.g. of `bert.pooler.dense.weight`."""
    return place(name.rpartition(".")[0])


def axis_width(shape: SchuBertConfig | Shape, axis: Axis) -> int:
    """How many entries an axis has; the key/query and value axes run over heads first."""
    if axis.kind == "embedding":
        return int(shape.embedding_size or shape.hidden_sizes[0])
    if axis.kind == "hidden":
        return int(shape.hidden_sizes[axis.layer])
    if axis.kind == "filter":
        return int(shape.filter_sizes[axis.layer])
    sizes = shape.key_query_sizes if axis.kind == "key_query" else shape.value_sizes
    return int(shape.head_counts[axis.layer] * sizes[axis.layer])


def move_layer(name: str, layer: int) -> str:
    """The name of a tensor or module of one layer, in another layer."""
    return re.sub(r"(encoder\.layer\.)\d+", rf"\g<1>{layer}", name, count=1)


def rebuild(model: PreTrainedModel, config: SchuBertConfig) -> PreTrainedModel:
    """A model of the same class with another config; it has a pooler where `model` has one.

    Its weights are whatever memory held: they are about to be replaced, and drawing them would take longer than that.
    """
    options = {"add_pooling_layer": model.pooler is not None} if hasattr(model, "pooler") else {}
    with no_init_weights():
        return type(model)(config, **options)


@dataclass(frozen=True)
class Sublayer:
    """One half of a layer: attention, or filters.

    Attributes:
        layer: its number.
        units: the axis that runs over its units: values, or filters.
        inputs: Q, K, V by "query", "key", "value"; or D by "filter"; empty where it has no units.
        reader: the module that reads the stream first; its input is what all of `inputs` read.
        inner: from the stream (batch, seq, h) and the attention mask to what `output` reads, (batch, seq, units).
        ending: the module of what follows, called as `ending(units, stream)`: `output`, `dropout`, residual, `norm`.
        output: P or G; without units a module that adds its bias.
        activation: of the filters, which `inner` applies; None for attention.
        heads, key_query_size: of attention; 0 for filters.
    """

    layer: int
    units: Axis
    inputs: dict[str, nn.Linear]
    reader: nn.Module
    inner: Callable[[Tensor, Tensor | None], Tensor]
    ending: nn.Module
    output: Any
    dropout: nn.Dropout
    norm: nn.LayerNorm
    activation: Callable[[Tensor], Tensor] | None = None
    heads: int = 0
    key_query_size: int = 0


@dataclass(frozen=True)
class Layer:
    """One layer: `module(x, mask)` computes it; `resize(x)` makes the stream as wide as it needs."""

    module: nn.Module
    attention: Sublayer
    filters: Sublayer
    resize: Callable[[Tensor], Tensor]


def layers(model: PreTrainedModel) -> list[Layer]:
    """The layers of a SchuBERT of any class, in order."""
    blocks: Any = cast(Any, model.base_model).encoder.layer
    return [
        Layer(x, _attention(i, x.attention), _filters(i, x), partial(resize_stream, width=x.hidden_size))
        for i, x in enumerate(blocks)
    ]


def _attention(layer: int, block: Any) -> Sublayer:
    heads = block.self
    names = ("query", "key", "value") if heads.num_attention_heads else ()
    return Sublayer(
        layer=layer,
        units=Axis("value", layer),
        inputs={name: getattr(heads, name) for name in names},
        reader=heads,
        inner=lambda x, mask: cast(Tensor, heads(x, mask)[0]),
        ending=block.output,
        output=block.output.dense,
        dropout=block.output.dropout,
        norm=block.output.LayerNorm,
        heads=heads.num_attention_heads,
        key_query_size=heads.key_query_size,
    )


def _filters(layer: int, block: Any) -> Sublayer:
    wide = block.intermediate
    return Sublayer(
        layer=layer,
        units=Axis("filter", layer),
        inputs={} if wide.dense is None else {"filter": wide.dense},
        reader=wide,
        inner=lambda x, mask: cast(Tensor, wide(x)),
        ending=block.output,
        output=block.output.dense,
        dropout=block.output.dropout,
        norm=block.output.LayerNorm,
        activation=wide.intermediate_act_fn,
    )


class Embeddings(NamedTuple):
    """`module(input_ids, token_type_ids)` sums `tables` of words, positions and segments, and ends with `norm`.

    That is the stream or, where there is a `projection`, what that makes it of.
    """

    module: nn.Module
    norm: nn.LayerNorm
    tables: tuple[nn.Embedding, nn.Embedding, nn.Embedding]
    projection: nn.Linear | None

    @property
    def last(self) -> nn.Module:
        """The module whose output is the stream."""
        return self.module if self.projection is None else self.projection

    def stream(self, **inputs: Tensor) -> Tensor:
        """What the first layer reads, shape (batch, seq, h)."""
        embedded: Tensor = self.module(**inputs)
        return embedded if self.projection is None else cast(Tensor, self.projection(embedded))


def embeddings(model: PreTrainedModel) -> Embeddings:
    """The embeddings of a SchuBERT of any class."""
    base: Any = model.base_model
    x = base.embeddings
    tables = x.word_embeddings, x.position_embeddings, x.token_type_embeddings
    return Embeddings(x, x.LayerNorm, tables, base.embeddings_project)
