"""The weights that remain make up for what was cut: every projection that reads something cut is refit, untrained.

From the embeddings to the heads the dense and the cut model run side by side on real text, sublayer by sublayer. Each
linear map W x + b of the cut model, with x what the cut model itself computes there, gets the least-squares solution
towards t, what the dense model has there:

    min over W', b' of  E |W' x + b' - t|^2 + |(W' - W) D|^2,   D^2 = ridge * Var(x)

so that errors of the layers before are corrected too, and nothing is fitted where there is no data. t is, for P and G,
the dense stream after the sublayer less the cut model's own residual; for Q, K, V, D, the MLM transform and heads that
read the stream, the dense outputs that were kept. LayerNorms, whose statistics changed with the channels, get scale
and shift by the same least squares, channel by channel. How strong the ridge of each map is, a fold of the text says.

Solving it for each group of pruned weights is Hassibi & Stork 1993 (optimal brain surgeon), in the form that He et al.
2017 (arXiv 1707.06168) give for channels: towards the dense outputs, on the cut network's own inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from ..anatomy import Axis, Sublayer, embeddings, layers
from ..heads import masked_lm, readers
from ..training.micro_batches import by_length
from ..training.objective import real_tokens, sequences
from .decoding import decoder_products, fit_transform
from .least_squares import NormRegression, Regression
from .plan import PruningPlan
from .precision import Batch, Reduce, exact

# What may be refit: P, G and the projection of the embeddings; Q, K and V; D; the LayerNorms; the MLM transform and
# the heads that read the stream.
PARTS = ("outputs", "heads", "filters", "norms", "transform")
STREAM, EMBEDDING = Axis("hidden", 0), Axis("embedding", -1)  # what the first layer reads; what the decoder reads
ModelT = TypeVar("ModelT", bound=PreTrainedModel)
Stream = list[Tensor]  # one tensor per batch, shape (batch, seq, width)
Map = Callable[[Tensor], Tensor]  # of one batch's tensor


@torch.no_grad()
def restore(
    cut: ModelT,
    dense: PreTrainedModel,
    plan: PruningPlan,
    batches: Sequence[Batch],
    *,
    fold: Sequence[Batch] = (),
    reduce: Reduce | None = None,
    ridge: float | None = None,
    parts: Collection[str] = PARTS,
) -> ModelT:
    """A cut model whose projections give, as far as they can, what the dense model gives.

    Of both models the stream is held, (tokens, h), and beside it what one sublayer computes of one batch.

    Args:
        cut: `compact(dense, plan)`; changed in place.
        batches: real text, on the models' device.
        fold: more of it, on which the ridge of every map is chosen before all of the text fits it.
        reduce: sums a tensor over processes that see different batches.
        ridge: how strongly weights are held where they are; None: as the fold says, or `least_squares.RIDGE`.
        parts: what is refit, of `PARTS`; the rest stays as it is.

    Returns:
        `cut`, in evaluation mode.
    """
    cut.eval()
    was_training = dense.training
    dense.eval()
    fitted, chosen_by = (list(by_length(some, dense.device)) for some in (batches, fold))
    try:
        _Restoration(cut, dense, plan, [*fitted, *chosen_by], len(fitted), reduce, ridge, parts).run()
    finally:
        dense.train(was_training)
    return cut


@dataclass
class _Restoration:
    cut: PreTrainedModel
    dense: PreTrainedModel
    plan: PruningPlan
    batches: Sequence[Batch]
    fitted: int  # how many of the batches there are before those of the fold
    reduce: Reduce | None
    ridge: float | None
    parts: Collection[str]

    def __post_init__(self) -> None:
        self.batches = [sequences(batch) for batch in self.batches]
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
            self._restore_sublayer(block.attention, layer.attention, ours, theirs)
            self._restore_sublayer(block.filters, layer.filters, ours, theirs)
        self._restore_heads(ours, theirs)

    def _embed(self) -> tuple[Stream, Stream]:
        """Embeddings of both; the cut model's projection or, failing that, LayerNorm is fitted to the dense ones."""
        ours, theirs = embeddings(self.cut), embeddings(self.dense)
        names = ("input_ids", "token_type_ids")
        inputs = [{name: batch[name] for name in names if name in batch} for batch in self.batches]
        target = [theirs.stream(**known) for known in inputs]
        before: Stream = []
        hook = ours.norm.register_forward_pre_hook(lambda _m, args: before.append(args[0]))
        for known in inputs:
            ours.module(**known)
        hook.remove()
        if ours.projection is None:
            self._fit_norm(ours.norm, before, (self._channels(x, STREAM) for x in target))
        own = [ours.norm(x) for x in before]
        if ours.projection is not None:
            if "outputs" in self.parts:
                self._fit([ours.projection], own, target, [lambda t: self._channels(t, STREAM)])
            own = [ours.projection(x) for x in own]
        self.masks = [
            create_bidirectional_mask(self.cut.config, x, batch.get("attention_mask"))
            for batch, x in zip(self.batches, own, strict=True)
        ]
        return own, target

    def _restore_sublayer(self, ours: Sublayer, theirs: Sublayer, own: Stream, target: Stream) -> None:
        """Q, K, V or D towards the dense outputs; P or G to the dense stream less the own residual; LayerNorm.

        Both streams become what they are behind the sublayer, batch by batch in place: no third one is held.
        """
        if ("heads" if theirs.heads else "filters") in self.parts and ours.inputs:
            wanted = [self._kept_outputs(name, ours, theirs) for name in ours.inputs]
            self._fit(list(ours.inputs.values()), own, target, wanted)
        output = self._regression([ours.output]) if "outputs" in self.parts else None
        channels = Axis("hidden", theirs.layer)
        for number, (x, t, mask) in enumerate(zip(own, target, self.masks, strict=True)):
            target[number] = theirs.output(theirs.inner(t, mask)) + t
            if output is not None:
                lack = self._channels(target[number], channels) - x - ours.output(units := ours.inner(x, mask))
                self._count(output, number, units, lack)
        if output is not None:
            self._correct([ours.output], output)
        for number, (x, t, mask) in enumerate(zip(own, target, self.masks, strict=True)):
            own[number], target[number] = ours.output(ours.inner(x, mask)) + x, theirs.norm(t)
        self._fit_norm(ours.norm, own, (self._channels(t, channels) for t in target))
        for number, x in enumerate(own):
            own[number] = ours.norm(x)

    def _kept_outputs(self, name: str, ours: Sublayer, theirs: Sublayer) -> Map:
        """What the dense map gives in the outputs that stay, from the dense stream."""
        kept = self.plan.kept(Axis("key_query", theirs.layer) if name in ("query", "key") else theirs.units)
        # The cut model's softmax divides by the root of its own k (see `surgery.compact`).
        ratio = math.sqrt(ours.key_query_size / theirs.key_query_size) if name == "query" else 1
        linear = theirs.inputs[name]
        weight, bias = linear.weight[kept] * ratio, linear.bias[kept] * ratio
        return lambda t: nn.functional.linear(t, weight, bias)

    def _restore_heads(self, own: Stream, target: Stream) -> None:
        """Whatever reads the last layer's stream but the pooler, whose refit gave no better NSP loss."""
        if "transform" not in self.parts:
            return
        dense = {reader.name: reader.module for reader in readers(self.dense)}
        ours, theirs = masked_lm(self.cut), masked_lm(self.dense)
        turned = theirs is not None and theirs.turned
        for reader in readers(self.cut):
            if reader.source == "stream" and not (turned and reader.place.row.part == "transform"):
                wanted_of = partial(self._read, dense[reader.name], reader.place.rows)
                self._fit([reader.module], own, target, [wanted_of])
        if ours is not None and theirs is not None:
            seen = self._as_decoder_sees(theirs.decoder)
            wanted = (seen(theirs.decoded(x)) for x in target)
            if turned:
                inputs, targets = (
                    [x[real] for x, real in zip(some, self.real, strict=True)] for some in (own, wanted)
                )
                fit_transform(ours, inputs, targets, self.reduce)
            else:
                self._fit_norm(ours.norm, (ours.activation(ours.transform(x)) for x in own), wanted)

    def _read(self, dense: nn.Module, rows: Axis | None, x: Tensor) -> Tensor:
        outputs: Tensor = dense(x)
        return outputs if rows is None else self._channels(outputs, rows)

    def _as_decoder_sees(self, decoder: nn.Linear) -> Map:
        """Of dense outputs t of the transform, what in the kept channels gives nearly the same logits.

        The decoder is tied to the embeddings and cannot be refit. With E its weight less what is the same for all
        words, S the kept channels and D the others, t becomes t_S + (E_S^T E_S)^-1 E_S^T E_D t_D. In directions that
        the decoder does not see (there are some wherever the vocabulary is smaller than the width) it stays t_S.
        """
        kept, width = self.plan.kept(EMBEDDING).cpu(), decoder.in_features
        gone = torch.tensor(sorted(set(range(width)) - set(kept.tolist())), dtype=torch.long)
        if not len(gone):
            return lambda t: self._channels(t, EMBEDDING)
        products = decoder_products(decoder, kept)
        gram = products[:, kept]
        gram.diagonal().add_(1e-6 * gram.diagonal().mean())
        to_kept = torch.linalg.solve(gram, products[:, gone]).to(decoder.weight)  # (kept, gone)
        return lambda t: self._channels(t, EMBEDDING) + t[..., gone.to(t.device)] @ to_kept.mT

    def _channels(self, x: Tensor, axis: Axis) -> Tensor:
        return x[..., self.plan.kept(axis).to(x.device)]

    def _fit(self, linears: Sequence[nn.Linear], inputs: Stream, targets: Stream, wanted: Sequence[Map]) -> None:
        """Refits maps that read the same inputs, in place, each towards what `wanted` makes of a target."""
        found = self._regression(linears)
        if found is None:
            return
        for number, (x, t) in enumerate(zip(inputs, targets, strict=True)):
            lack = [of(t) - linear(x) for linear, of in zip(linears, wanted, strict=True)]
            self._count(found, number, x, torch.cat(lack, dim=-1))
        self._correct(linears, found)

    def _regression(self, linears: Sequence[nn.Module]) -> Regression | None:
        """None for the module of a sublayer without units, which has no weight."""
        real = [linear for linear in linears if isinstance(linear, nn.Linear)]
        return Regression(real[0].in_features, [x.out_features for x in real], self.reduce) if real else None

    def _count(self, regression: Regression, number: int, inputs: Tensor, lack: Tensor) -> None:
        real = self.real[number]
        regression.add(inputs[real], lack[real], fold=number >= self.fitted)

    def _correct(self, linears: Sequence[nn.Linear], regression: Regression) -> None:
        for linear, correction in zip(linears, regression.solve(self.ridge), strict=True):
            linear.weight.copy_(exact(linear.weight) + correction.weight)
            linear.bias.copy_(exact(linear.bias) + correction.bias)

    def _fit_norm(self, norm: nn.LayerNorm, inputs: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
        """Scale and shift of every channel by least squares, in place."""
        if "norms" not in self.parts:
            return
        found = NormRegression(norm, self.reduce)
        for x, t, real in zip(inputs, targets, self.real, strict=True):
            found.add(x[real], t[real])
        found.apply()
