"""Embeddings in the basis that sorts their directions by what they carry, behind a projection: e becomes a dimension.

The sum x of a token's word, position and segment embeddings is normalised to z, with mean 0 over its entries, and
reaches the first layer as y = W z + b (W is diagonal where there is no projection yet). For any orthogonal R that
leaves the vector of ones alone, tables E -> E R and W -> W R change nothing, since then z -> R^T z. Here

    S = (W^T G W)^(1/2),   S M S = U L U^T,   R = U, sorted by L

with M = E[z z^T] over real text, G = E[g g^T] and g the gradient of what is minimised by y. In the metric G the best y
of rank n needs the first n entries of U^T S z (Eckart & Young 1936). S is left to the projection, which `restoration`
refits: with it LayerNorm would divide by the length in that metric. On all-MiniLM-L6-v2, e = 128 and nothing trained,
the cosine to the dense embedding is then 0.946; with G = 1 0.913, with codes of the best rank-n fit itself 0.947. This
is ALBERT's factorisation (Lan et al. 2020, arXiv 1909.11942), found and not trained.

Most words of a vocabulary do not occur in a calibration text, so M is mixed with that of all words alike.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel

from ..anatomy import Embeddings, embeddings, rebuild
from ..shape import with_projection
from ..training.objective import Objective, real_tokens
from .precision import Batch, Reduce, exact, summed

VOCABULARY = 0.3  # share of all words alike in M (measured: 0.06 to 0.7 give nearly the same)
ROUND = 1e-4  # of the metric's mean: directions that the gradients never showed
ROWS = 2**14  # words at a time


@dataclass(frozen=True)
class EmbeddingMoments:
    """Over real tokens, float64, on the CPU.

    Attributes:
        entries: E[z z^T] of the normalised embeddings, shape (e, e).
        gradients: E[g g^T] of gradients by what the first layer reads, shape (h, h).
    """

    entries: Tensor
    gradients: Tensor


def measure_embeddings(
    objective: Objective, batches: Sequence[Batch], reduce: Reduce | None = None
) -> EmbeddingMoments:
    """The moments on some text, of an objective's model, which is not changed.

    `batches` are on the model's device; `reduce` sums a tensor over processes that see different batches.
    """
    model = objective.model
    parts, was_training = embeddings(model), model.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    entries = torch.zeros(parts.norm.weight.shape * 2, dtype=torch.float64)
    gradients = torch.zeros((model.config.hidden_sizes[0],) * 2, dtype=torch.float64)
    tokens, real = torch.zeros(1, dtype=torch.float64), torch.empty(0)

    def take_entries(_: object, args: tuple[Tensor, ...]) -> None:
        z = _normalised(args[0].detach()[real], parts)
        entries.add_(exact(z.mT @ z))
        tokens.add_(len(z))

    def take_gradients(_: object, __: object, output: Tensor) -> None:
        def add(gradient: Tensor) -> None:
            g = gradient.detach()[real].float()
            gradients.add_(exact(g.mT @ g))

        output.requires_grad_(True).register_hook(add)  # type: ignore[no-untyped-call]

    hooks = [parts.norm.register_forward_pre_hook(take_entries), parts.last.register_forward_hook(take_gradients)]
    model.eval().requires_grad_(False)
    try:
        with torch.enable_grad():
            for batch in batches:
                real = real_tokens(batch).flatten(0, -2)  # (sequences, seq)
                for probe in objective.probes(dict(batch)):
                    probe.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
        for parameter in trainable:
            parameter.requires_grad_(True)
    number = summed(tokens, reduce).clamp(min=1)
    return EmbeddingMoments(summed(entries, reduce) / number, summed(gradients, reduce) / number)


@torch.no_grad()
def project_embeddings(model: PreTrainedModel, moments: EmbeddingMoments) -> PreTrainedModel:
    """A copy with projected embeddings, no narrower than before, their entries sorted by what they carry.

    Args:
        model: a SchuBERT without a masked-LM head, with or without a projection; not changed.
        moments: of its embeddings, see `measure_embeddings`.

    Returns:
        A model that computes the same, to rounding. Entry n of its embeddings is the n-th most important but for the
        last, which makes their mean 0, as LayerNorm would have it.
    """
    projected = rebuild(model, with_projection(model.config)).to(model.device, model.dtype)
    projected.load_state_dict(copy.deepcopy(model.state_dict()), strict=False)
    ours, theirs = embeddings(projected), embeddings(model)
    scale, shift = exact(theirs.norm.weight), exact(theirs.norm.bias)
    if theirs.projection is None:
        weight, bias = torch.diag(scale), shift
    else:
        weight = exact(theirs.projection.weight) * scale  # (h, e)
        bias = exact(theirs.projection.bias) + exact(theirs.projection.weight) @ shift
    metric = weight.mT @ moments.gradients @ weight
    turn = _basis(_with_vocabulary(moments.entries, theirs), metric)
    for table in ours.tables:
        for rows in torch.split(table.weight, ROWS):
            rows.copy_(exact(rows) @ turn)
    ours.norm.weight.fill_(1.0)
    ours.norm.bias.zero_()
    assert ours.projection is not None
    ours.projection.weight.copy_(weight @ turn)
    ours.projection.bias.copy_(bias)
    projected.train(model.training)
    return projected


def _normalised(x: Tensor, parts: Embeddings) -> Tensor:
    return layer_norm(x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1:], eps=parts.norm.eps)


def _with_vocabulary(entries: Tensor, parts: Embeddings) -> Tensor:
    """M, mixed with that of every word once, at the mean position."""
    words, positions, segments = (table.weight for table in parts.tables)
    place = positions.mean(0) + segments[0]
    total = torch.zeros_like(entries)
    for rows in torch.split(words, ROWS):
        z = _normalised(rows + place, parts)
        total += exact(z.mT @ z)
    return (1 - VOCABULARY) * entries + VOCABULARY * total / len(words)


def _basis(entries: Tensor, metric: Tensor) -> Tensor:
    """R of the module's formula, shape (e, e), from M and W^T G W."""
    width = len(entries)
    ones = torch.ones(width, 1, dtype=entries.dtype) / width**0.5
    centred = torch.linalg.qr(torch.cat([ones, torch.eye(width, dtype=entries.dtype)], dim=1)).Q[:, 1:width]
    entries, metric = (centred.mT @ x @ centred for x in (entries, metric))  # without the direction of ones
    values, vectors = torch.linalg.eigh(metric)
    floor = ROUND * values.mean().clamp(min=torch.finfo(values.dtype).tiny ** 0.5)
    root = (vectors * values.clamp(min=floor).sqrt()) @ vectors.mT
    _, sorted_ = torch.linalg.eigh(root @ entries @ root)  # ascending
    directions = centred @ sorted_.flip(1)  # (e, e - 1)
    # A reflection that swaps the last entry with the direction of ones, so that ones stay ones.
    axis = -ones
    axis[-1] += 1
    length = axis.square().sum()
    reflection = torch.eye(width, dtype=entries.dtype) - 2 * axis @ axis.mT / length.clamp(min=1e-300)
    turn: Tensor = torch.cat([directions, ones], dim=1) @ reflection
    return turn
