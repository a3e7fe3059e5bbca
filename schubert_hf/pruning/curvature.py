"""How much the loss would rise without a unit, once all that reads it has absorbed its mean: from gradients alone.

A unit's entries x are read by a linear map. Replacing them by their means mu, which the map's bias can take over,
moves the loss to second order by

    1/2 E[(g . (x - mu))^2]  ~  1/2 sum_pq Cov(x)_pq E[g_p g_q]

with g the gradient of the loss by x along that map alone; activations and gradients count as independent, as in K-FAC
(Martens & Grosse 2015, arXiv 1503.05671). Where an objective draws directions (see `Objective.probes`) nothing is
assumed: the left side is taken as it stands, summed over the tokens of a sequence before it is squared, since what is
pooled adds up. Entries of keys and queries are read by a product, hence their Fisher information as gates,
1/2 E[(q_n dL/dq_n)^2] (Theis et al. 2018, arXiv 1801.05787). A channel is read by every layer and every head: its
score is the sum. Whole layers are simply left out, once each.

All are in the loss's unit, so that kinds compete on one scale: the score is that rise by what the unit costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..anatomy import embeddings, layers
from ..cost import Cost, unit_cost
from ..heads import masked_lm, readers
from ..shape import Shape
from ..training.objective import Objective, real_tokens
from .criteria import Scores
from .precision import Batch, Reduce, exact, summed
from .units import EMBEDDINGS, STREAM, Group

FREE = 1e-6  # of the dearest unit: what costs nothing is not worth removing, and no division by 0 either
Sums = dict[str, Tensor]
# Where units are read: "embeddings" (e), "channels" (h), "filters" (f), "values" (a, v), "queries" (k), "decoded"
# (what a masked-LM head's norm gives before it is turned), and the place.
Site = tuple[str, int | str]


@dataclass(frozen=True)
class Rises:
    """Of the loss, summed over the items that it is a mean of, when a unit goes.

    Attributes:
        of: shape (units,), by group.
        items: how many there are.
        decoded: shape (e,): what each channel adds to this where a masked-LM head, turned here, has a decoder that is
            tied to embeddings without a projection, and so reads the channels themselves.
    """

    of: Mapping[Group, Tensor]
    items: float
    decoded: Tensor | None = None

    def without_projection(self) -> Rises:
        """What they are in the model that had none, which computes the same: no entries to cut, but more channels."""
        rises = {group: rise.clone() for group, rise in self.of.items() if group != EMBEDDINGS}
        if STREAM in rises and self.decoded is not None:
            rises[STREAM][: len(self.decoded)] += self.decoded
        return Rises(rises, self.items)

    def by_cost(self, cost: Cost, shape: Shape) -> Scores:
        """By what each unit of a model of this shape costs."""
        costs = {group: unit_cost(cost, shape, *group) for group in self.of}
        least = FREE * max(costs.values()) or 1.0
        return {group: rise / self.items / max(costs[group], least) for group, rise in self.of.items()}


def curvature_importance(
    objective: Objective,
    groups: Mapping[Group, int],
    cost: Cost,
    batches: Sequence[Batch],
    reduce: Reduce | None = None,
) -> Scores:
    """The rise of the loss that removing a unit brings, by the unit's cost; see `measure_rises`."""
    shape = Shape.of(objective.model.config)
    return measure_rises(objective, groups, batches, reduce).by_cost(cost, shape)


def measure_rises(
    objective: Objective, groups: Mapping[Group, int], batches: Sequence[Batch], reduce: Reduce | None = None
) -> Rises:
    """The rise of the loss that removing a unit brings; the objective's model is not changed.

    `batches` are on the model's device; `reduce` sums a tensor over processes that see different batches.
    """
    model = objective.model
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training = model.training
    model.eval().requires_grad_(False)
    try:
        observed = _Observed(model, whole=objective.follows_dense)
        items = observed.run(objective, batches)
        rises = {
            group: observed.rise(group, units, reduce) for group, units in groups.items() if group.dimension != "l"
        }
        rises |= _rises_without_layers(objective, groups, batches, reduce)
        total = float(summed(torch.tensor([float(items)]), reduce))
        decoded = next(iter(observed.read_as("decoded", reduce)), None)
    finally:
        model.train(was_training)
        for parameter in trainable:
            parameter.requires_grad_(True)
    return Rises(rises, total, decoded)


class _Observed:
    """Sums over real tokens of x, x x^T and g g^T (or their diagonals) wherever a linear map reads units.

    With `whole`, of a a^T, a b^T and b b^T over sequences in place of the second and the third: a is the sum of g x
    over a sequence, b that of g.
    """

    def __init__(self, model: PreTrainedModel, *, whole: bool = False) -> None:
        self.model, self.whole = model, whole
        self.heads = [layer.attention.heads for layer in layers(model)]
        self.sums: dict[Site, Sums] = {}
        self.real = torch.empty(0)

    def run(self, objective: Objective, batches: Sequence[Batch]) -> int:
        """A forward pass per batch, a backward pass per probe; returns the number of items of the first term."""
        items = 0
        with ExitStack() as stack, torch.enable_grad():
            for hook in self._hooks():
                stack.callback(hook.remove)
            for batch in batches:
                self.real = real_tokens(batch).flatten(0, -2)  # (sequences, seq)
                for probe in objective.probes(dict(batch)):
                    probe.backward(retain_graph=True)  # type: ignore[no-untyped-call]
                items += objective.count(dict(batch))[objective.terms[0]]
        return items

    def rise(self, group: Group, units: int, reduce: Reduce | None) -> Tensor:
        """1/2 sum of Cov(x) E[g g^T] over the entries of each unit, shape (units,), times the number of items."""
        if group.dimension in "he":
            total = torch.zeros(units, dtype=torch.float64)
            for spread in self.read_as({"h": "channels", "e": "embeddings"}[group.dimension], reduce):
                total[: len(spread)] += spread
            return total
        kind = {"f": "filters", "k": "queries"}.get(group.dimension, "values")
        sums = self._summed((kind, group.layer or 0), reduce)
        if group.dimension == "f":
            return _spread(sums) / 2
        if group.dimension == "k":
            return sums["gate"].view(-1, units).sum(0) / 2
        both = _crossed_spread(sums)  # (a v, a v)
        heads = self.heads[group.layer or 0]
        blocks = both.view(heads, -1, heads, len(both) // heads)
        axes = (1, 3) if group.dimension == "a" else (0, 2)
        return blocks.sum(axes).diagonal() / 2

    def read_as(self, kind: str, reduce: Reduce | None) -> list[Tensor]:
        """1/2 Var(x) sum of g^2, entry by entry, of every site of a kind."""
        return [_spread(self._summed(site, reduce)) / 2 for site in self.sums if site[0] == kind]

    def _summed(self, site: Site, reduce: Reduce | None) -> Sums:
        return {name: summed(value, reduce) for name, value in self.sums[site].items()}

    def _hooks(self) -> Iterator[Any]:
        """In the order of the forward pass."""
        # The parameters are frozen, so the embeddings are where the graph begins.
        projection = embeddings(self.model).projection
        yield embeddings(self.model).module.register_forward_hook(lambda _m, _a, output: output.requires_grad_(True))
        if projection is not None:
            yield projection.register_forward_pre_hook(self._reads(("embeddings", "projection")))
        for number, layer in enumerate(layers(self.model)):
            for name, sublayer in (("attention", layer.attention), ("filters", layer.filters)):
                if not sublayer.inputs:
                    continue
                yield sublayer.reader.register_forward_pre_hook(self._reads(("channels", f"{name} {number}")))
                heads = bool(sublayer.heads)
                if heads:
                    yield sublayer.inputs["query"].register_forward_hook(self._gates(("queries", number)))
                inner = self._reads(("values" if heads else "filters", number), crossed=heads)
                yield sublayer.output.register_forward_pre_hook(inner)
        for reader in readers(self.model):
            reads_embeddings = projection is not None and reader.source == "transform"
            kind = "embeddings" if reads_embeddings else "channels"
            yield reader.module.register_forward_pre_hook(self._reads((kind, reader.name)))
        head = masked_lm(self.model)
        if head is not None and head.turned:
            yield head.norm.register_forward_hook(lambda _m, _a, output: self._observe(("decoded", "norm"), output))

    def _reads(self, site: Site, *, crossed: bool = False) -> Callable[..., Any]:
        return lambda _module, args: (self._observe(site, args[0], crossed), *args[1:])

    def _observe(self, site: Site, inputs: Tensor, crossed: bool = False) -> Tensor:
        """The same entries as a tensor of their own, whose gradient is that along one map alone."""
        entries = inputs.view_as(inputs)
        real = self.real if inputs.ndim == 3 else None  # what most heads read is chosen already
        x = _tokens(inputs, real)
        record = {"n": torch.tensor(float(len(x))), "x": x.sum(0)}
        self._add(site, record if self.whole else {**record, "xx": _products(x, x, crossed)})

        def take(gradient: Tensor) -> None:
            if not self.whole:
                g = _tokens(gradient, real)
                self._add(site, {"gg": _products(g, g, crossed)})
                return
            a, b = (_over_tokens(one, real) for one in (gradient * inputs.detach(), gradient))
            pairs = {"aa": (a, a), "ab": (a, b), "bb": (b, b)}
            self._add(site, {name: _products(*pair, crossed) for name, pair in pairs.items()})

        if entries.requires_grad:
            entries.register_hook(take)  # type: ignore[no-untyped-call]
        return entries

    def _gates(self, site: Site) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            query, real, sums = output.detach(), self.real, _over_tokens if self.whole else _tokens
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._add(site, {"gate": sums(query * gradient, real).square().sum(0)})
            )

        return hook

    def _add(self, site: Site, record: Mapping[str, Tensor]) -> None:
        sums = self.sums.setdefault(site, {})
        for name, value in record.items():
            sums[name] = sums[name] + exact(value) if name in sums else exact(value)


def _rises_without_layers(
    objective: Objective, groups: Mapping[Group, int], batches: Sequence[Batch], reduce: Reduce | None
) -> Scores:
    droppable = [group for group in groups if group.dimension == "l"]
    if not droppable:
        return {}

    @torch.no_grad()
    def loss() -> Tensor:
        total = torch.zeros(1, dtype=torch.float64)
        for batch in batches:
            sums = objective(dict(batch))
            total += exact(torch.stack([sums[term] for term in objective.terms])).sum()
        return summed(total, reduce)

    whole, rises = loss(), {}
    for group in droppable:
        module = layers(objective.model)[group.layer or 0].module
        hook = module.register_forward_hook(lambda _m, args, _output: args[0])  # the layer is passed by
        rises[group] = (loss() - whole).clamp(min=0)
        hook.remove()
    return rises


def _tokens(x: Tensor, real: Tensor | None) -> Tensor:
    """Entries of real tokens, shape (tokens, width), in single precision at least."""
    chosen = x.detach()[real] if real is not None else x.detach().flatten(0, -2)
    return chosen.to(torch.promote_types(chosen.dtype, torch.float32))


def _over_tokens(x: Tensor, real: Tensor | None) -> Tensor:
    """Sums over the real tokens of each sequence, shape (sequences, width), in single precision at least."""
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    return wide.flatten(0, -2) if real is None else (wide * real.unsqueeze(-1)).sum(-2)


def _products(left: Tensor, right: Tensor, crossed: bool) -> Tensor:
    """The sum over rows of left right^T, or of its diagonal."""
    return left.mT @ right if crossed else (left * right).sum(0)


def _spread(sums: Sums) -> Tensor:
    """The sum of (g . (x - mu))^2, entry by entry: Var(x) times the sum of g^2, or as it is."""
    mean = sums["x"] / sums["n"]
    if "aa" in sums:
        return (sums["aa"] - 2 * mean * sums["ab"] + mean.square() * sums["bb"]).clamp(min=0)
    if "gg" not in sums:  # nothing depends on it
        return torch.zeros_like(sums["x"])
    return (sums["xx"] / sums["n"] - mean.square()).clamp(min=0) * sums["gg"]


def _crossed_spread(sums: Sums) -> Tensor:
    """The same for every two entries, shape (width, width)."""
    mean = sums["x"] / sums["n"]
    if "aa" in sums:
        shared = sums["ab"] * mean
        return sums["aa"] - shared - shared.mT + sums["bb"] * torch.outer(mean, mean)
    return (sums["xx"] / sums["n"] - torch.outer(mean, mean)) * sums["gg"]
