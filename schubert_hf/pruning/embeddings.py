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

A masked-LM head's decoder is tied to the words, so it reads R^T m of what its transform gives, m. Its loss adds the
same form, T C T with C = Cov(m) and T^2 = E[g g^T] of the gradients by m, to S M S. An activation and a LayerNorm keep
R^T out of the transform's weights: a projected model turns m behind it, and only what is cut of that model gets a
transform of its own (see `decoding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel

from ..anatomy import Embeddings, embeddings, rebuild
from ..heads import masked_lm
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
        decoded: Cov(m) of what the masked-LM decoder reads, shape (e, e); None where there is none.
        decoder_gradients: those by m, summed over the tokens that are predicted, by the number of all.
    """

    entries: Tensor
    gradients: Tensor
    decoded: Tensor | None = None
    decoder_gradients: Tensor | None = None


def measure_embeddings(
    objective: Objective, batches: Sequence[Batch], reduce: Reduce | None = None
) -> EmbeddingMoments:
    """The moments on some text, of an objective's model, which is not changed.

    `batches` are on the model's device; `reduce` sums a tensor over processes that see different batches.
    """
    model = objective.model
    parts, head, was_training = embeddings(model), masked_lm(model), model.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    width, real = len(parts.norm.weight), torch.empty(0)
    entries, gradients = _Sums(width), _Sums(model.config.hidden_sizes[0])
    decoded, asked = _Sums(width), _Sums(width)

    def take_entries(_: object, args: tuple[Tensor, ...]) -> None:
        entries.add(_normalised(args[0].detach()[real], parts))

    def take_gradients(_: object, __: object, output: Tensor) -> None:
        output.requires_grad_(True).register_hook(lambda g: gradients.add(g[real]))  # type: ignore[no-untyped-call]

    def take_decoded(_: object, __: object, output: Tensor) -> None:  # (tokens, e): of tokens that are predicted
        decoded.add(output)
        output.register_hook(asked.add)  # type: ignore[no-untyped-call]

    hooks = [parts.norm.register_forward_pre_hook(take_entries), parts.last.register_forward_hook(take_gradients)]
    if head is not None:
        predictions: Any = head.module
        hooks.append(predictions.transform.register_forward_hook(take_decoded))
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
    number, _, of_entries = entries.split(reduce)
    moments = EmbeddingMoments(of_entries / number, gradients.split(reduce)[2] / number)
    if head is None:
        return moments
    (read, total, products), products_asked = decoded.split(reduce), asked.split(reduce)[2]
    covariance = products / read - torch.outer(total, total) / read**2
    return replace(moments, decoded=covariance, decoder_gradients=products_asked / number)


class _Sums:
    """Of rows x, in double precision: how many there are, and the sums of x and x x^T."""

    def __init__(self, width: int) -> None:
        self.products = torch.zeros(width + 1, width + 1, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Counts rows in, shape (rows, width)."""
        x = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
        own = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self.products += exact(own.mT @ own)

    def split(self, reduce: Reduce | None) -> tuple[float, Tensor, Tensor]:
        """The number, at least 1; the sums, shape (width,) and (width, width), over all processes."""
        all_ = summed(self.products, reduce)
        return max(1.0, float(all_[-1, -1])), all_[-1, :-1], all_[:-1, :-1]


@torch.no_grad()
def project_embeddings(model: PreTrainedModel, moments: EmbeddingMoments) -> PreTrainedModel:
    """A copy with projected embeddings, no narrower than before, their entries sorted by what they carry.

    Args:
        model: a SchuBERT, with or without a projection; not changed.
        moments: of its embeddings, see `measure_embeddings`.

    Returns:
        A model that computes the same, to rounding. Entry n of its embeddings is the n-th most important but for the
        last, which makes their mean 0, as LayerNorm would have it.
    """
    projected = rebuild(model, with_projection(model.config))
    # Both share what stays as it is, which nobody changes: what is cut of them is a copy.
    projected.load_state_dict(model.state_dict(), strict=False, assign=True)
    ours, theirs = embeddings(projected), embeddings(model)
    scale, shift = exact(theirs.norm.weight), exact(theirs.norm.bias)
    if theirs.projection is None:
        weight, bias = torch.diag(scale), shift
    else:
        weight = exact(theirs.projection.weight) * scale  # (h, e)
        bias = exact(theirs.projection.bias) + exact(theirs.projection.weight) @ shift
    forms = [(_with_vocabulary(moments.entries, theirs), weight.mT @ moments.gradients @ weight)]
    if moments.decoded is not None and moments.decoder_gradients is not None:
        forms.append((moments.decoded, moments.decoder_gradients))
    turn = _basis(forms)
    if (head := masked_lm(projected)) is not None:
        head.turn(turn)
    assert ours.projection is not None
    for own, table in zip(ours.tables, theirs.tables, strict=True):
        own.weight = nn.Parameter(table.weight.clone())
        for rows in torch.split(own.weight, ROWS):
            rows.copy_(exact(rows) @ turn)
    like = theirs.norm.weight
    ours.norm.load_state_dict({"weight": torch.ones_like(like), "bias": torch.zeros_like(like)}, assign=True)
    ours.projection.load_state_dict({"weight": (weight @ turn).to(like), "bias": bias.to(like)}, assign=True)
    projected.tie_weights()
    return projected.to(model.device).train(model.training)


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


def _basis(forms: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """R of the module's formula, shape (e, e), from pairs of moments and a metric, M and W^T G W."""
    width = len(forms[0][0])
    ones = torch.ones(width, 1, dtype=torch.float64) / width**0.5
    centred = torch.linalg.qr(torch.cat([ones, torch.eye(width, dtype=ones.dtype)], dim=1)).Q[:, 1:width]
    carried = torch.zeros(width - 1, width - 1, dtype=ones.dtype)
    for moments, metric in forms:
        moments, metric = (centred.mT @ x @ centred for x in (moments, metric))  # without the direction of ones
        values, vectors = torch.linalg.eigh(metric)
        floor = ROUND * values.mean().clamp(min=torch.finfo(values.dtype).tiny ** 0.5)
        root = (vectors * values.clamp(min=floor).sqrt()) @ vectors.mT
        carried += root @ moments @ root
    _, sorted_ = torch.linalg.eigh(carried)  # ascending
    directions = centred @ sorted_.flip(1)  # (e, e - 1)
    # A reflection that swaps the last entry with the direction of ones, so that ones stay ones.
    axis = -ones
    axis[-1] += 1
    length = axis.square().sum()
    reflection = torch.eye(width, dtype=ones.dtype) - 2 * axis @ axis.mT / length.clamp(min=1e-300)
    turn: Tensor = torch.cat([directions, ones], dim=1) @ reflection
    return turn
