"""Alphas at work: within a block, the six matrices of every layer compute with scaled rows and columns.

    Q, K    rows by alpha_k, alpha_a    columns by alpha_h
    V       rows by alpha_v, alpha_a    columns by alpha_h
    P       rows by alpha_h, alpha_l    columns by alpha_v, alpha_a
    D       rows by alpha_f             columns by alpha_h
    G       rows by alpha_h, alpha_l    columns by alpha_f

A projection of the embeddings has its rows scaled by alpha_h and its columns by alpha_e.

Where both factors of a path meet linear maps only, as along Q . K and V -> P, the square at one place stands for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn
from transformers import PreTrainedModel

from ...anatomy import Axis, AxisKind, Layer, Sublayer, embeddings, layers
from .linear import gated_linear, gated_projections

Factor = Callable[[Axis], Tensor | None]  # what the entries of an axis are multiplied by; None: nothing


@contextmanager
def gated(model: PreTrainedModel, factor: Factor) -> Iterator[None]:
    """Within the block, the matrices of all layers of a SchuBERT compute with the scales; afterwards as before."""
    projection = embeddings(model).projection
    with ExitStack() as stack:
        if projection is not None:
            projection.forward = partial(_project, projection, factor)  # type: ignore[method-assign]
            stack.callback(delattr, projection, "forward")
        for number, layer in enumerate(layers(model)):
            for module, forward in _LayerGates(layer, number, factor).forwards().items():
                module.forward = forward
                stack.callback(delattr, module, "forward")  # the class's own is seen again
        yield


def _project(linear: nn.Linear, factor: Factor, x: Tensor) -> Tensor:
    rows, columns = factor(Axis("hidden", 0)), factor(Axis("embedding", -1))
    return gated_linear(x, linear.weight, linear.bias, rows=rows, columns=columns)


class _LayerGates:
    """The scales of one layer, looked up anew in every forward pass."""

    def __init__(self, layer: Layer, number: int, factor: Factor) -> None:
        self.attention, self.filters, self.number = layer.attention, layer.filters, number
        self.factor = factor
        self._made: list[Tensor] = []

    def forwards(self) -> dict[nn.Module, Callable[..., Tensor]]:
        """What the modules of the layer compute instead."""
        attention, filters = self.attention, self.filters
        replaced: dict[nn.Module, Callable[..., Tensor]] = {
            attention.ending: partial(self._ending, attention, lambda: self._scale("value", 2)),
            filters.ending: partial(self._ending, filters, lambda: self._scale("filter")),
        }
        if attention.inputs:
            replaced |= dict.fromkeys(attention.inputs.values(), self._next)
            replaced[attention.inputs["query"]] = self._query
        if filters.inputs:
            replaced[filters.reader] = self._filters_input
        return replaced

    def _scale(self, kind: AxisKind, power: int = 1) -> Tensor | None:
        factor = self.factor(Axis(kind, self.number))
        return factor if factor is None or power == 1 else factor.square()

    def _query(self, x: Tensor) -> Tensor:
        """The queries; keys and values, which are asked for next, are made of the same input at the same time."""
        maps = tuple(self.attention.inputs.values())
        rows, columns = self._scale("key_query", 2), self._scale("hidden")
        query, *self._made = gated_projections(x, maps, rows=rows, columns=columns)
        return query

    def _next(self, x: Tensor) -> Tensor:
        return self._made.pop(0)

    def _filters_input(self, x: Tensor) -> Tensor:
        """Shape (..., f), before the activation, which goes with the next matrix."""
        filters = self._scale("filter")
        filters = None if filters is None else filters.detach()  # the next matrix finds their whole gradient
        linear = self.filters.inputs["filter"]
        return gated_linear(x, linear.weight, linear.bias, rows=filters, columns=self._scale("hidden"))

    def _ending(self, sublayer: Sublayer, columns: Callable[[], Tensor | None], x: Tensor, stream: Tensor) -> Tensor:
        """The end of a sublayer: projection, dropout, residual and LayerNorm."""
        units = columns()
        scales = [scale for scale in (self._scale("hidden"), self._scale("layer")) if scale is not None]
        rows = math.prod(scales[1:], start=scales[0]) if scales else None
        output, activation = sublayer.output, sublayer.activation
        if not isinstance(output, nn.Linear):
            # All its heads or filters have gone: it adds its bias, which is scaled like any row.
            bias = output(x) if rows is None else output(x) * rows.to(x.dtype)
            y = sublayer.dropout(bias) + stream
        else:
            # Added at once where no dropout stands between, so that less is kept for the backward pass.
            drops = sublayer.dropout.training and sublayer.dropout.p > 0
            project = partial(gated_linear, x, output.weight, output.bias, rows=rows, columns=units)
            y = project(activation=activation, residual=None if drops else stream)
            y = sublayer.dropout(y) + stream if drops else y
        normalized: Tensor = sublayer.norm(y)
        return normalized
