"""The weights that remain make up for what was cut: every projection that reads something cut is refit, untrained.

From the embeddings to the heads the dense and the cut model run side by side on real text, sublayer by sublayer. Each
linear map W x + b of the cut model, with x what the cut model itself computes there, gets the least-squares solution
towards t, what the dense model has there:

    min over W', b' of  E |W' x + b' - t|^2 + |(W' - W) D|^2,   D^2 = ridge * Var(x)

so that errors of the layers before are corrected too, and nothing is fitted where there is no data. t is, for P and G,
the dense stream after the sublayer less the cut model's own residual; for Q, K, V, D, the MLM transform and heads that
read the stream, the dense outputs that were kept. LayerNorms, whose statistics changed with the channels, get scale
and shift by the same least squares, channel by channel.

Solving it for each group of pruned weights is Hassibi & Stork 1993 (optimal brain surgeon), in the form that He et al.
2017 (arXiv 1707.06168) give for channels: towards the dense outputs, on the cut network's own inputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from ..anatomy import Axis, Sublayer, embeddings, layers, masked_lm, readers
from ..training.objective import real_tokens
from .plan import PruningPlan
from .precision import Batch, Reduce, exact, summed, widen

# What may be refit: P and G; Q, K and V; D; the LayerNorms; the MLM transform and the heads that read the stream.
PARTS = ("outputs", "heads", "filters", "norms", "transform")
RIDGE = 1e-2  # share of an input's variance
FLOOR = 1e-12  # of a variance: an input that never changes keeps its weight
ModelT = TypeVar("ModelT", bound=PreTrainedModel)
Stream = list[Tensor]  # one tensor per batch, shape (batch, seq, width)


@torch.no_grad()
def restore(
    cut: ModelT,
    dense: PreTrainedModel,
    plan: PruningPlan,
    batches: Sequence[Batch],
    *,
    reduce: Reduce | None = None,
    ridge: float = RIDGE,
    parts: Collection[str] = PARTS,
) -> ModelT:
    """A cut model whose projections give, as far as they can, what the dense model gives.

    The hidden states of all batches are held for both models, one layer's worth.

    Args:
        cut: `compact(dense, plan)`; not changed.
        batches: real text, on the models' device.
        reduce: sums a tensor over processes that see different batches.
        ridge: how strongly weights are held where they are.
        parts: what is refit, of `PARTS`; the rest stays as it is.

    Returns:
        A copy in evaluation mode.
    """
    restored: ModelT = copy.deepcopy(cut).eval()
    was_training = dense.training
    dense.eval()
    try:
        _Restoration(restored, dense, plan, batches, reduce, ridge, parts).run()
    finally:
        dense.train(was_training)
    return restored


@dataclass
class _Restoration:
    cut: PreTrainedModel
    dense: PreTrainedModel
    plan: PruningPlan
    batches: Sequence[Batch]
    reduce: Reduce | None
    ridge: float
    parts: Collection[str]

    def __post_init__(self) -> None:
        self.real = [real_tokens(batch) for batch in self.batches]
        self.masks: list[Tensor | None] = []

    def run(self) -> None:
        ours, theirs = self._embed()
        cut_layers = iter(layers(self.cut))
        for number, layer in enumerate(layers(self.dense)):
            if number not in self.plan.layers:  # the dense stream goes on; the next layers make up for what it gains
                theirs = [layer.module(x, mask) for x, mask in zip(theirs, self.masks, strict=True)]
                continue
            block = next(cut_layers)
            ours = [block.resize(x) for x in ours]
            theirs = [layer.resize(x) for x in theirs]
            ours, theirs = self._restore_sublayer(block.attention, layer.attention, ours, theirs)
            ours, theirs = self._restore_sublayer(block.filters, layer.filters, ours, theirs)
        self._restore_heads(ours, theirs)

    def _embed(self) -> tuple[Stream, Stream]:
        """Embeddings of both; the cut model's LayerNorm is fitted to the dense one's channels."""
        ours, theirs = embeddings(self.cut), embeddings(self.dense)
        names = ("input_ids", "token_type_ids")
        inputs = [{name: batch[name] for name in names if name in batch} for batch in self.batches]
        target = [theirs.module(**known) for known in inputs]
        before: Stream = []
        hook = ours.norm.register_forward_pre_hook(lambda _m, args: before.append(args[0]))
        for known in inputs:
            ours.module(**known)
        hook.remove()
        self._fit_norm(ours.norm, before, self._channels(target, 0))
        own = [ours.norm(x) for x in before]
        self.masks = [
            create_bidirectional_mask(self.cut.config, x, batch.get("attention_mask"))
            for batch, x in zip(self.batches, own, strict=True)
        ]
        return own, target

    def _restore_sublayer(
        self, ours: Sublayer, theirs: Sublayer, own: Stream, target: Stream
    ) -> tuple[Stream, Stream]:
        """Q, K, V or D towards the dense outputs; P or G to the dense stream less the own residual; LayerNorm."""
        if ("heads" if theirs.heads else "filters") in self.parts:
            for name, linear in ours.inputs.items():
                dense = theirs.inputs[name]
                axis = Axis("key_query", theirs.layer) if name in ("query", "key") else theirs.units
                kept = self.plan.kept(axis)
                # The cut model's softmax divides by the root of its own k (see `surgery.compact`).
                ratio = math.sqrt(ours.key_query_size / theirs.key_query_size) if name == "query" else 1
                self._fit(linear, own, [dense(x)[..., kept] * ratio for x in target])
        units = [ours.inner(x, mask) for x, mask in zip(own, self.masks, strict=True)]
        after = [theirs.output(theirs.inner(x, mask)) + x for x, mask in zip(target, self.masks, strict=True)]
        if isinstance(ours.output, nn.Linear) and "outputs" in self.parts:
            lack = [t - x for t, x in zip(self._channels(after, theirs.layer), own, strict=True)]
            self._fit(ours.output, units, lack)
        before = [ours.output(x) + residual for x, residual in zip(units, own, strict=True)]
        target = [theirs.norm(x) for x in after]
        self._fit_norm(ours.norm, before, self._channels(target, theirs.layer))
        return [ours.norm(x) for x in before], target

    def _restore_heads(self, own: Stream, target: Stream) -> None:
        """Whatever reads the last layer's stream but the pooler, whose refit gave no better NSP loss."""
        if "transform" not in self.parts:
            return
        dense = {reader.name: reader.module for reader in readers(self.dense)}
        for reader in readers(self.cut):
            if reader.source == "stream":
                outputs = [dense[reader.name](x) for x in target]
                kept = reader.place.rows
                self._fit(reader.module, own, outputs if kept is None else self._channels(outputs, kept.layer))
        ours, theirs = masked_lm(self.cut), masked_lm(self.dense)
        if ours is not None and theirs is not None:
            before = [ours.activation(ours.transform(x)) for x in own]
            wanted = [theirs.norm(theirs.activation(theirs.transform(x))) for x in target]
            self._fit_norm(ours.norm, before, self._as_decoder_sees(theirs.decoder, wanted))

    def _as_decoder_sees(self, decoder: nn.Linear, target: Stream) -> Stream:
        """Of dense outputs t of the transform, what in the kept channels gives nearly the same logits.

        The decoder is tied to the embeddings and cannot be refit. With E its weight less what is the same for all
        words, S the kept channels and D the others, t becomes t_S + (E_S^T E_S)^-1 E_S^T E_D t_D. In directions that
        the decoder does not see (there are some wherever the vocabulary is smaller than the width) it stays t_S.
        """
        kept = self.plan.kept(Axis("hidden", 0))
        gone = torch.tensor(sorted(set(range(decoder.in_features)) - set(kept.tolist())), dtype=torch.long)
        seen = self._channels(target, 0)
        if not len(gone):
            return seen
        weight = exact(decoder.weight)
        weight = weight - weight.mean(0)
        gram = weight[:, kept].mT @ weight[:, kept]
        gram.diagonal().add_(1e-6 * gram.diagonal().mean())
        to_kept = torch.linalg.solve(gram, weight[:, kept].mT @ weight[:, gone]).to(target[0])  # (kept, gone)
        return [own + t[..., gone.to(t.device)] @ to_kept.mT for own, t in zip(seen, target, strict=True)]

    def _channels(self, stream: Stream, layer: int) -> Stream:
        kept = self.plan.kept(Axis("hidden", layer)).to(stream[0].device)
        return [x[..., kept] for x in stream]

    def _fit(self, linear: nn.Linear, inputs: Stream, targets: Stream) -> None:
        """Refits W and b in place. Products where the data is, sums and solution in double precision on the CPU."""
        weight, bias = exact(linear.weight), exact(linear.bias)
        width, outputs = weight.shape[1], weight.shape[0]
        sums = torch.zeros(width + outputs + 1, width + 1, dtype=torch.float64)
        for x, t, real in zip(inputs, targets, self.real, strict=True):
            own = torch.cat([x[real], x.new_ones(int(real.sum()), 1)], dim=1)  # (tokens, width + 1)
            error = t[real] - linear(x[real])  # (tokens, outputs): what is still missing
            sums += exact(torch.cat([own, error], dim=1).mT @ own)
        sums = summed(sums, self.reduce)
        number = sums[width, width]
        mean, lack = sums[width, :width] / number, sums[width + 1 :, width] / number
        covariance = sums[:width, :width] / number - torch.outer(mean, mean)
        shared = sums[width + 1 :, :width] / number - torch.outer(lack, mean)  # (outputs, width)
        variance = covariance.diagonal()
        covariance = covariance + torch.diag(self.ridge * variance + 1e-8 * variance.mean() + FLOOR)
        change = torch.linalg.solve(covariance, shared.mT).mT
        linear.weight.copy_(weight + change)
        linear.bias.copy_(bias + lack - change @ mean)

    def _fit_norm(self, norm: nn.LayerNorm, inputs: Stream, targets: Stream) -> None:
        """Scale and shift of every channel by least squares, in place."""
        if "norms" not in self.parts:
            return
        width = norm.weight.shape[0]
        sums = torch.zeros(5, width, dtype=torch.float64)
        for x, t, real in zip(inputs, targets, self.real, strict=True):
            z, y = widen(layer_norm(x[real], (width,), eps=norm.eps)), widen(t[real])
            rows = [torch.ones_like(z).sum(0), z.sum(0), y.sum(0), (z * z).sum(0), (z * y).sum(0)]
            sums += exact(torch.stack(rows))
        number, z, y, zz, zy = summed(sums, self.reduce)
        variance = (zz / number - (z / number).square()).clamp(min=0)
        # Held where it is, as strongly as the weights.
        held = self.ridge * variance + 1e-8
        scale = (zy / number - z * y / number.square() + held * exact(norm.weight)) / (variance + held)
        norm.weight.copy_(scale)
        norm.bias.copy_(y / number - scale * z / number)
