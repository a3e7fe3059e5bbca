"""The masked-LM head of a model whose embeddings were cut: its transform is refit towards the dense logits.

The decoder is tied to the embeddings. Where they are turned (see `embeddings`) and cut, the transform

    m(x) = scale * LayerNorm(act(T x + b)) + shift

has to give what the turned decoder reads. An activation and a LayerNorm stand between the weights and that, so no
closed form does: T, b, scale and shift minimise

    E (m(x) - t)^T C (m(x) - t),   C = E_S^T E_S

with x what the cut model itself computes, t what of the dense outputs the kept entries can give (see
`restoration`), and E_S the decoder's kept columns less what is the same for all words: squared differences of logits.
L-BFGS (Liu & Nocedal 1989) takes a fixed number of steps from the best linear map, which an activation far to the
right hardly bends. No label is looked at, nothing is drawn, and all processes take the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ..heads import MaskedLM
from .least_squares import NormRegression, Regression
from .precision import Reduce, exact, summed

STEPS = 60  # each a pass or two over the tokens
RIDGE = 1e-3  # of an input's variance, for the linear map that the steps begin with
RIGHT = 1.0  # where activations begin, in their standard deviations
ROWS = 2**13  # words at a time


def decoder_products(decoder: nn.Linear, columns: Tensor | None = None) -> Tensor:
    """E_S^T E of a decoder's weight E less what is the same for all words, and its columns S (None: all); float64."""
    width = decoder.in_features
    chosen = torch.arange(width) if columns is None else columns
    products, total = torch.zeros(len(chosen), width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for part in torch.split(decoder.weight, ROWS):
        rows = exact(part)
        products += rows[:, chosen].mT @ rows
        total += rows.sum(0)
    return products.addr_(total[chosen], total, alpha=-1 / decoder.out_features)


def fit_transform(
    head: MaskedLM,
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    reduce: Reduce | None = None,
    *,
    steps: int = STEPS,
) -> None:
    """Refits the transform of a masked-LM head and the LayerNorm behind it, in place.

    Args:
        inputs: what it reads, batch by batch, each of shape (tokens, h).
        targets: what it should give, (tokens, e) each.
        reduce: sums a tensor over processes that see different tokens.
    """
    metric = decoder_products(head.decoder)
    metric = metric / metric.diagonal().mean().clamp(min=torch.finfo(metric.dtype).tiny)
    _begin_linear(head, inputs, targets, reduce)
    _descend(head, inputs, targets, metric.to(targets[0]), reduce, steps)


def _begin_linear(head: MaskedLM, inputs: Sequence[Tensor], targets: Sequence[Tensor], reduce: Reduce | None) -> None:
    """The best linear map of the inputs, moved to where the activation is nearly linear."""
    transform, norm = head.transform, head.norm
    found = Regression(transform.in_features, [transform.out_features], reduce)
    squares = torch.zeros(2, transform.out_features, dtype=torch.float64)
    number = torch.zeros(1, dtype=torch.float64)
    for x, t in zip(inputs, targets, strict=True):
        found.add(x, t, fold=False)
        squares += torch.stack([exact(t).sum(0), exact(t).square().sum(0)])
        number += len(t)
    (linear,) = found.solve(RIDGE)
    total = summed(number, reduce).clamp(min=1)
    mean, square = summed(squares, reduce) / total
    # One factor for all outputs, so that LayerNorm leaves their proportions as they are.
    spread = (square - mean.square()).mean().clamp(min=1e-12).sqrt()
    transform.weight.copy_(linear.weight / spread)
    transform.bias.copy_((linear.bias - mean) / spread + RIGHT)
    scaled = NormRegression(norm, reduce)
    for x, t in zip(inputs, targets, strict=True):
        scaled.add(head.activation(transform(x)), t)
    scaled.apply()


def _descend(
    head: MaskedLM,
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    metric: Tensor,
    reduce: Reduce | None,
    steps: int,
) -> None:
    weights = [head.transform.weight, head.transform.bias, head.norm.weight, head.norm.bias]
    trained = [weight.detach().clone().requires_grad_(True) for weight in weights]
    tokens = summed(torch.tensor([float(sum(map(len, inputs)))]), reduce).clamp(min=1)

    def loss_of(x: Tensor, t: Tensor) -> Tensor:
        transform, bias, scale, shift = trained
        inner = head.activation(torch.nn.functional.linear(x, transform, bias))
        lack = layer_norm(inner, inner.shape[-1:], scale, shift, head.norm.eps) - t
        return ((lack @ metric) * lack).sum()

    def closure() -> float:
        total = torch.zeros(1 + sum(weight.numel() for weight in trained), dtype=torch.float64)
        for x, t in zip(inputs, targets, strict=True):
            with torch.enable_grad():
                loss = loss_of(x, t)
                gradients = torch.autograd.grad(loss, trained)
            total += torch.cat([exact(loss)[None], *(exact(one).flatten() for one in gradients)])
        total = summed(total, reduce) / tokens
        parts = torch.split(total[1:], [weight.numel() for weight in trained])
        for weight, part in zip(trained, parts, strict=True):
            weight.grad = part.view_as(weight).to(weight)
        return float(total[0])

    with torch.no_grad():
        found = torch.optim.LBFGS(trained, max_iter=steps, history_size=steps, line_search_fn="strong_wolfe")
        before = closure()
        found.step(closure)  # type: ignore[no-untyped-call]
        if closure() < before:  # not a number: the linear map stays
            for weight, better in zip(weights, trained, strict=True):
                weight.copy_(better)
