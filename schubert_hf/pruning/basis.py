"""A change of basis inside every head that leaves the network's function alone and sorts what the head carries.

Scores of a head depend on its queries and keys through q . k alone, its output on its values through P z alone, z the
values that the attention mixed. No rotary embedding stands between, so for any invertible X and Y with X Y^T = 1

    q -> X^T q, k -> Y^T k        leaves q . k
    P -> P X,   z -> Y^T z        leaves P z

The paper (Khetan & Karnin 2020, arXiv 2005.06628) prunes k and v in the basis that training happened to end in, where
entry n of one head has nothing to do with entry n of the next, and every entry carries something. Here

    F_q F_k^T = U S V^T,   X = F_k^T V S^(-1/2),   Y = F_q^T U S^(-1/2)

with F^T F the second moments: F_q^T F_q those of q, F_k^T F_k those of k; for values F_P^T F_P = P^T P, and z in the
place of k. Then the new entries are uncorrelated, sorted, and the first n of them are the best n: no other product of
rank n is closer to q . k in the mean square (Eckart & Young 1936). Without measured moments the inputs count as white.

Biases. Scores that differ by a constant per query are the same to the softmax, hence the key's bias goes, the query's
counts as one more column of its weight, and of measured keys the mean of each sequence does not count. Attention
weights sum to 1, hence the value's bias (with measured moments: the mean of z) moves to the output as P b. Dropout of
attention weights breaks that sum in training, where it is 1 in the mean only; we move the bias all the same.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..anatomy import Sublayer, layers
from .moments import HeadMoments
from .precision import exact

NEGLIGIBLE = 1e-12  # of the largest singular value: what is below carries rounding only
DAMPING = 1e-6  # of the layer's mean variance: so that what the data never showed keeps its place in the function
ModelT = TypeVar("ModelT", bound=PreTrainedModel)


@torch.no_grad()
def change_basis(model: ModelT, moments: Sequence[HeadMoments | None] | None = None) -> ModelT:
    """Sorts the key/query and value entries of every head by how much they carry.

    Args:
        model: a SchuBERT of any class; not changed.
        moments: per layer, of what its heads compute on real text (see `moments.measure_heads`).

    Returns:
        A model that computes the same in evaluation, to rounding; entry n of a head is its n-th most important. It
        shares with `model` the tensors that stay as they are.
    """
    heads = [layer.attention for layer in layers(model)]
    maps = [linear for attention in heads for linear in (*attention.inputs.values(), attention.output)]
    turned = {id(parameter) for linear in maps for parameter in linear.parameters()}
    # Copies hold what they are told to hold in the place of the tensors that they would copy.
    changed = copy.deepcopy(model, {id(x): x for x in model.parameters() if id(x) not in turned})
    for number, layer in enumerate(layers(changed)):
        if layer.attention.heads:
            measured = moments[number] if moments is not None else None
            _sort_key_query(layer.attention, measured)
            _sort_value(layer.attention, measured)
    return changed


def _sort_key_query(attention: Sublayer, measured: HeadMoments | None) -> None:
    heads, to_q, to_k = attention.heads, attention.inputs["query"], attention.inputs["key"]
    query = torch.cat([exact(to_q.weight), exact(to_q.bias)[:, None]], dim=1)
    query = query.view(heads, -1, query.shape[1])  # (a, k, h + 1)
    key = exact(to_k.weight).view(heads, -1, query.shape[2] - 1)  # (a, k, h)
    if measured is None:
        to_query, to_key = balance(_triangle(query.mT), _triangle(key.mT))
    else:
        to_query, to_key = balance(_root(measured.query.to(query)), _root(measured.key.to(query)))
    query, key = to_query.mT @ query, to_key.mT @ key
    to_q.weight.copy_(query[..., :-1].flatten(0, 1))
    to_q.bias.copy_(query[..., -1].flatten())
    to_k.weight.copy_(key.flatten(0, 1))
    to_k.bias.zero_()


def _sort_value(attention: Sublayer, measured: HeadMoments | None) -> None:
    heads, to_v, output = attention.heads, attention.inputs["value"], attention.output
    value = exact(to_v.weight).view(heads, -1, to_v.in_features)  # (a, v, h)
    bias = exact(to_v.bias).view(heads, -1)  # (a, v)
    weight = exact(output.weight).view(output.out_features, heads, -1).transpose(0, 1)  # (a, h, v)
    roots = _triangle(value.mT) if measured is None else _root(measured.value.to(value))
    to_output, to_value = balance(_triangle(weight), roots)
    moved = bias if measured is None else measured.value_mean
    output.bias.copy_(exact(output.bias) + torch.einsum("ahv,av->h", weight, moved))
    to_v.weight.copy_((to_value.mT @ value).flatten(0, 1))
    to_v.bias.copy_((to_value.mT @ (bias - moved)[..., None]).flatten())
    output.weight.copy_((weight @ to_output).transpose(0, 1).flatten(1))


def balance(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """X and Y of the module's formula, shape (a, n, n) each, from F of what X and of what Y is applied to, shape
    (a, m, n) and (a, m', n); columns that carry nothing are zero.
    """
    u, s, vt = torch.linalg.svd(left @ right.mT, full_matrices=False)  # (a, m, r), (a, r), (a, r, m')
    carries = s > NEGLIGIBLE * s[:, :1]
    scale = torch.where(carries, s, 1.0).rsqrt() * carries  # (a, r)
    missing = left.shape[-1] - s.shape[-1]  # a head wider than its layer
    x, y = ((root.mT @ vectors * scale[:, None]) for root, vectors in ((right, vt.mT), (left, u)))
    return nn.functional.pad(x, (0, missing)), nn.functional.pad(y, (0, missing))


def _triangle(matrices: Tensor) -> Tensor:
    """F with F^T F = M^T M, of at most as many rows as columns: no product of the size of the layer is made."""
    triangle: Tensor = torch.linalg.qr(matrices, mode="r").R
    return triangle


def _root(moments: Tensor) -> Tensor:
    """F with F^T F = the moments, none of them below a floor that all heads of the layer share."""
    values, vectors = torch.linalg.eigh(moments)
    floor = max(DAMPING * float(values.mean()), torch.finfo(values.dtype).tiny ** 0.25)
    root: Tensor = values.clamp(min=floor).sqrt()[..., None] * vectors.mT
    return root
