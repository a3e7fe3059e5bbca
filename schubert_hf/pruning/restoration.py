"""What stays makes up for what went: every projection that reads something cut is solved anew, without training.

From the embeddings to the head the dense and the cut model run side by side on real text, layer by layer. Each linear
map W x + b of the cut model, with x what the cut model itself computes there, gets the least-squares solution towards
t, what the dense model has there:

    min over W', b' of  E |W' x + b' - t|^2 + |(W' - W) D|^2,   D^2 = ridge * Var(x)

so that errors of the layers before are corrected too, and nothing is fitted where there is no data. t is, for P and G,
the dense stream after the sublayer less the cut model's own residual; for Q, K, V, D and the MLM transform, the dense
outputs that were kept. Attention comes before filters. LayerNorms, whose statistics changed with the channels,
get scale and shift by the same least squares, channel by channel.

Solving it for each group of pruned weights is Hassibi & Stork 1993 (optimal brain surgeon), in the form that He et al.
2017 (arXiv 1707.06168) give for channels: towards the dense outputs, on the cut network's own inputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from ..anatomy import Axis
from ..modeling_schubert import resize_stream
from .moments import Batch, Reduce, real_tokens
from .plan import PruningPlan

# What may be solved anew: P and G; Q, K and V; D; the LayerNorms; the MLM transform.
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
        cut: what `compact(dense, plan)` gave; not touched.
        dense: the model that was cut.
        plan: by which it was.
        batches: real text, on the models' device.
        reduce: sums a tensor over processes that see different batches.
        ridge: how strongly weights are held where they are.
        parts: what is solved anew, of `PARTS`; the rest stays as it is.

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


class _Restoration:
    def __init__(
        self,
        cut: PreTrainedModel,
        dense: PreTrainedModel,
        plan: PruningPlan,
        batches: Sequence[Batch],
        reduce: Reduce | None,
        ridge: float,
        parts: Collection[str],
    ) -> None:
        self.parts = parts
        self.cut: Any = cut
        self.dense: Any = dense
        self.plan, self.batches, self.reduce, self.ridge = plan, batches, reduce or (lambda x: x), ridge
        self.real = [real_tokens(batch) for batch in batches]
        self.masks: list[Tensor | None] = []

    def run(self) -> None:
        ours, theirs = self._embed()
        dense_layers, cut_layers = self.dense.base_model.encoder.layer, self.cut.base_model.encoder.layer
        for index, layer in enumerate(dense_layers):
            if index not in self.plan.layers:  # the dense stream goes on; what it gains the next layers make up for
                theirs = [layer(x, mask) for x, mask in zip(theirs, self.masks, strict=True)]
                continue
            block = cut_layers[self.plan.layers.index(index)]
            ours = [resize_stream(x, block.hidden_size) for x in ours]
            theirs = [resize_stream(x, layer.hidden_size) for x in theirs]
            ours, theirs = self._restore_attention(index, block.attention, layer.attention, ours, theirs)
            ours, theirs = self._restore_filters(index, block, layer, ours, theirs)
        self._restore_heads(ours, theirs)

    def _embed(self) -> tuple[Stream, Stream]:
        """Embeddings of both; the cut model's LayerNorm is fitted to the dense one's channels."""
        ours, theirs = self.cut.base_model.embeddings, self.dense.base_model.embeddings
        names = ("input_ids", "token_type_ids")
        known = [{name: batch[name] for name in names if name in batch} for batch in self.batches]
        target = [theirs(**inputs) for inputs in known]
        norm = ours.LayerNorm
        before = []
        hook = norm.register_forward_pre_hook(lambda _m, args: before.append(args[0]))
        for inputs in known:
            ours(**inputs)
        hook.remove()
        self._fit_norm(norm, before, self._channels(target, 0))
        own = [norm(x) for x in before]
        for batch, x in zip(self.batches, own, strict=True):
            mask = create_bidirectional_mask(self.cut.config, x, batch.get("attention_mask"))
            self.masks.append(mask)
        return own, target

    def _restore_attention(
        self, index: int, ours: Any, theirs: Any, own: Stream, target: Stream
    ) -> tuple[Stream, Stream]:
        heads, plan = ours.self, self.plan
        if heads.num_attention_heads and "heads" in self.parts:
            keys, values = plan.kept(Axis("key_query", index)), plan.kept(Axis("value", index))
            # The cut model's softmax divides by the root of its own k (see `surgery.compact`).
            ratio = math.sqrt(heads.key_query_size / theirs.self.key_query_size)
            self._fit(heads.query, own, [theirs.self.query(x)[..., keys] * ratio for x in target])
            self._fit(heads.key, own, [theirs.self.key(x)[..., keys] for x in target])
            self._fit(heads.value, own, [theirs.self.value(x)[..., values] for x in target])
        mixed = [heads(x, mask)[0] for x, mask in zip(own, self.masks, strict=True)]
        wanted = [theirs.output.dense(theirs.self(x, mask)[0]) + x for x, mask in zip(target, self.masks, strict=True)]
        return self._restore_output(index, ours.output, theirs.output, mixed, own, wanted)

    def _restore_filters(
        self, index: int, ours: Any, theirs: Any, own: Stream, target: Stream
    ) -> tuple[Stream, Stream]:
        if ours.intermediate.dense is not None and "filters" in self.parts:
            kept = self.plan.kept(Axis("filter", index))
            self._fit(ours.intermediate.dense, own, [theirs.intermediate.dense(x)[..., kept] for x in target])
        active = [ours.intermediate(x) for x in own]
        wanted = [theirs.output.dense(theirs.intermediate(x)) + x for x in target]
        return self._restore_output(index, ours.output, theirs.output, active, own, wanted)

    def _restore_output(
        self, index: int, ours: Any, theirs: Any, inputs: Stream, residual: Stream, wanted: Stream
    ) -> tuple[Stream, Stream]:
        """P or G towards the dense stream less the cut model's residual, then the LayerNorm behind it."""
        if isinstance(ours.dense, nn.Linear) and "outputs" in self.parts:
            missing = [t - x for t, x in zip(self._channels(wanted, index), residual, strict=True)]
            self._fit(ours.dense, inputs, missing)
        before = [ours.dense(x) + kept for x, kept in zip(inputs, residual, strict=True)]
        target = [theirs.LayerNorm(x) for x in wanted]
        self._fit_norm(ours.LayerNorm, before, self._channels(target, index))
        return [ours.LayerNorm(x) for x in before], target

    def _restore_heads(self, own: Stream, target: Stream) -> None:
        # Not the pooler: it reads one token per example, and solved anew it gave no better next-sentence loss.
        predictions = getattr(getattr(self.cut, "cls", None), "predictions", None)
        if predictions is None or "transform" not in self.parts:
            return
        ours, theirs = predictions.transform, self.dense.cls.predictions.transform
        self._fit(ours.dense, own, self._channels([theirs.dense(x) for x in target], 0))
        before = [ours.transform_act_fn(ours.dense(x)) for x in own]
        self._fit_norm(ours.LayerNorm, before, self._as_decoder_sees([theirs(x) for x in target]))

    def _as_decoder_sees(self, target: Stream) -> Stream:
        """Of dense outputs of the transform, what in the kept channels gives nearly the same logits.

        The decoder is tied to the embeddings and cannot be solved anew: with E its weight over all channels, E_S over
        the kept ones, both less what is the same for all words, t becomes (E_S^T E_S)^-1 E_S^T E t.
        """
        weight = self.dense.cls.predictions.decoder.weight.double()
        weight = weight - weight.mean(0)
        kept = weight[:, self.plan.kept(Axis("hidden", 0)).to(weight.device)]
        gram = kept.mT @ kept
        gram.diagonal().add_(1e-6 * gram.diagonal().mean())
        to_kept = torch.linalg.solve(gram, kept.mT @ weight).to(target[0].dtype)  # (kept, h)
        return [x @ to_kept.mT for x in target]

    def _channels(self, stream: Stream, layer: int) -> Stream:
        kept = self.plan.kept(Axis("hidden", layer)).to(stream[0].device)
        return [x[..., kept] for x in stream]

    def _fit(self, linear: nn.Linear, inputs: Stream, targets: Stream) -> None:
        """Solves W and b anew, in place. Products in single precision, sums and solution in double."""
        weight, bias = linear.weight.data.double(), linear.bias.data.double()
        width, outputs = weight.shape[1], weight.shape[0]
        sums = torch.zeros(width + outputs + 1, width + 1, dtype=torch.float64, device=weight.device)
        for x, t, real in zip(inputs, targets, self.real, strict=True):
            own = torch.cat([x[real], x.new_ones(int(real.sum()), 1)], dim=1)  # (tokens, width + 1)
            error = t[real] - linear(x[real])  # (tokens, outputs): what is still missing
            sums += (torch.cat([own, error], dim=1).mT @ own).double()
        sums = self.reduce(sums)
        number = sums[width, width]
        mean, lack = sums[width, :width] / number, sums[width + 1 :, width] / number
        covariance = sums[:width, :width] / number - torch.outer(mean, mean)
        shared = sums[width + 1 :, :width] / number - torch.outer(lack, mean)  # (outputs, width)
        variance = covariance.diagonal()
        covariance = covariance + torch.diag(self.ridge * variance + 1e-8 * variance.mean() + FLOOR)
        change = torch.linalg.solve(covariance, shared.mT).mT
        linear.weight.data.copy_(weight + change)
        linear.bias.data.copy_(bias + lack - change @ mean)

    def _fit_norm(self, norm: nn.LayerNorm, inputs: Stream, targets: Stream) -> None:
        """Scale and shift of every channel by least squares, in place."""
        if "norms" not in self.parts:
            return
        width = norm.weight.shape[0]
        sums = torch.zeros(5, width, dtype=torch.float64, device=norm.weight.device)
        for x, t, real in zip(inputs, targets, self.real, strict=True):
            z = layer_norm(x[real], (width,), eps=norm.eps).double()
            y = t[real].double()
            sums += torch.stack([torch.ones_like(z).sum(0), z.sum(0), y.sum(0), (z * z).sum(0), (z * y).sum(0)])
        number, z, y, zz, zy = self.reduce(sums)
        variance = (zz / number - (z / number).square()).clamp(min=0)
        # Held where it is, as strongly as the weights.
        held = self.ridge * variance + 1e-8
        scale = (zy / number - z * y / number.square() + held * norm.weight.double()) / (variance + held)
        norm.weight.data.copy_(scale)
        norm.bias.data.copy_(y / number - scale * z / number)
