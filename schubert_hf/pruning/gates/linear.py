"""Linear maps with scaled rows and columns: gradients for the scales alone, at the least time and memory.

    y = (diag(rows) W diag(columns)) x + diag(rows) b  [+ residual]

The scales are multiplied into the weight, which is small beside the activations, and what their gradients need is at
hand in the backward pass: sum_t dy y / rows and sum_t dx x / columns. So no weight gradient is computed, and hardly
anything is kept that the neighbours in the network do not save for themselves: x is the last LayerNorm's output, and
with a residual y is the difference of the next LayerNorm's input and the last one's output. Where a scale is 0 its
gradient is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Activation = Callable[[Tensor], Tensor]
# What is needed only for a moment is made slice by slice of the tokens, and stays in the cache.
MOST_SLICES, SLICE = 8, 2**18  # numbers


def gated_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """y = (diag(rows) W diag(columns)) activation(x) + diag(rows) b + residual.

    With an activation, `columns` must be what x has been scaled by, too, without a gradient: both gradients are found
    here. The activation is computed anew in the backward pass instead of being kept.

    Args:
        x: shape (..., in).
        weight, bias: shape (out, in) and (out,), frozen.
        rows, columns: shape (out,) and (in,); None: 1.
        residual: shape (..., out); None: 0.
        activation: elementwise; None: the identity.
    """
    result: Tensor = _GatedLinear.apply(x, weight, bias, rows, columns, residual, activation)  # type: ignore[no-untyped-call]
    return result


def gated_projections(
    x: Tensor, maps: Sequence[nn.Linear], *, rows: Tensor | None = None, columns: Tensor | None = None
) -> tuple[Tensor, ...]:
    """What several frozen maps make of x, shape (..., in), as `gated_linear`; its gradient is summed and read once.

    The first map alone has `rows`, shape (out,); all have `columns`, shape (in,); None: 1.
    """
    weights, biases = [one.weight for one in maps], [one.bias for one in maps]
    result: tuple[Tensor, ...] = _GatedProjections.apply(x, rows, columns, *weights, *biases)  # type: ignore[no-untyped-call]
    return result


class _GatedProjections(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor | None, columns: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        number = len(parameters) // 2
        weights, biases = parameters[:number], parameters[number:]
        ctx.dtype, cast = _compute_dtype(x), x.to(_compute_dtype(x))
        outputs = tuple(
            linear(cast, *_scaled_map(weight, bias, None if n else rows, columns, ctx.dtype))
            for n, (weight, bias) in enumerate(zip(weights, biases, strict=True))
        )
        _, wants_rows, wants_columns, *_ = ctx.needs_input_grad
        first = outputs[0] if wants_rows else None
        ctx.save_for_backward(x if wants_columns else None, first, rows, columns, *weights)
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        x, first, rows, columns, *weights = ctx.saved_tensors
        wants_x, wants_rows, wants_columns, *_ = ctx.needs_input_grad
        dx = d_rows = d_columns = None
        if wants_x or wants_columns:
            for n, (dy, weight) in enumerate(zip(dys, weights, strict=True)):
                flat = dy.flatten(0, -2).to(ctx.dtype)
                scaled = _scaled(weight, None if n else rows, columns).to(ctx.dtype)
                dx = flat.mm(scaled) if dx is None else dx.addmm_(flat, scaled)
            assert dx is not None
            dx = dx.view(*dys[0].shape[:-1], -1)
            d_columns = _divided(_dots(dx, x), columns) if wants_columns else None
        if wants_rows:
            d_rows = _divided(_dots(dys[0], first), rows)
        return (dx if wants_x else None), d_rows, d_columns, *[None] * (2 * len(weights))


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        columns: Tensor | None,
        residual: Tensor | None,
        activation: Activation | None,
    ) -> Tensor:
        ctx.activation, ctx.dtype = activation, _compute_dtype(x)
        scaled = _scaled_map(weight, bias, rows, columns, ctx.dtype)
        if activation is None:
            y = linear(x.to(ctx.dtype), *scaled)
        else:
            y = torch.cat([linear(activation(part).to(ctx.dtype), *scaled) for part in _slices(x)])
            y = y.view(*x.shape[:-1], -1)
        if residual is not None:
            y = y.add_(residual) if y.dtype == residual.dtype else y + residual
        _, _, _, wants_rows, wants_columns, _, _ = ctx.needs_input_grad
        kept_x = x if wants_columns or activation is not None else None
        ctx.save_for_backward(weight, rows, columns, kept_x, *((y, residual) if wants_rows else (None, None)))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        weight, rows, columns, x, y, residual = ctx.saved_tensors
        wants_x, _, _, wants_rows, wants_columns, wants_residual, _ = ctx.needs_input_grad
        dx = d_rows = d_columns = None
        if wants_x or wants_columns:
            # Made anew rather than kept: of all layers together it would be another copy of the encoder.
            dx = dy.to(ctx.dtype).matmul(_scaled(weight, rows, columns).to(ctx.dtype))
            if ctx.activation is not None:
                d_columns = _through_activation(ctx.activation, x, dx)
            elif wants_columns:
                d_columns = _dots(dx, x)
        if wants_rows:
            d_rows = _divided(_dots(dy, y, residual), rows)
        d_columns = _divided(d_columns, columns) if wants_columns and d_columns is not None else None
        return dx, None, None, d_rows, d_columns, (dy if wants_residual else None), None


def _through_activation(activation: Activation, z: Tensor, da: Tensor) -> Tensor:
    """Turns `da` into dz, in its place; returns the sum over tokens of dz z + da a."""
    dots = []
    for part, grad in zip(_slices(z), _slices(da), strict=True):
        with torch.enable_grad():
            leaf = part.detach().requires_grad_()
            a = activation(leaf)
            (dz,) = torch.autograd.grad(a, leaf, grad.to(a.dtype))
        products = (grad * a.detach()).addcmul_(dz, part)
        dots.append(products.sum(0, dtype=_accurate(products.dtype)))
        grad.copy_(dz)
    return torch.stack(dots).sum(0)


def _dots(one: Tensor, other: Tensor, less: Tensor | None = None) -> Tensor:
    """The sum over tokens of one (other - less), column by column, shape (width,), in single precision at least."""
    parts = [_slices(tensor) for tensor in (one, other, less) if tensor is not None]
    dots = []
    for x, y, *rest in zip(*parts, strict=True):
        product = x * (y - rest[0] if rest else y)
        dots.append(product.sum(0, dtype=_accurate(product.dtype)))
    return torch.stack(dots).sum(0)


def _slices(x: Tensor) -> tuple[Tensor, ...]:
    return x.flatten(0, -2).chunk(min(MOST_SLICES, max(1, x.numel() // SLICE)))


def _scaled(weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    scaled = weight if rows is None else weight * rows[:, None]
    return scaled if columns is None else scaled * columns


def _scaled_map(
    weight: Tensor, bias: Tensor | None, rows: Tensor | None, columns: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    bias = bias if bias is None or rows is None else bias * rows
    return _scaled(weight, rows, columns).to(dtype), None if bias is None else bias.to(dtype)


def _divided(dots: Tensor, scale: Tensor) -> Tensor:
    # Should training hit 0 exactly, that step finds no gradient there: 0 / 0 would end the run.
    return dots / torch.where(scale == 0, 1.0, scale)


def _accurate(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What a linear map computes in: under autocast not what its input has."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
