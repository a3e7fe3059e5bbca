"""K-prune: Park et al. 2024, *Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models*
(arXiv 2308.03449).

From the first sublayer to the last, on the model as it is by then: (1) knowledge measurement: what each head and each
filter of this and the later sublayers holds of the dense model's predictions and of its representations; (2) mask
search: those with the least knowledge per FLOP go until the rest fits the budget, but only this sublayer is cut;
(3) weight tuning: its output projection is refit by least squares towards the dense stream.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from schubert_hf.anatomy import layers
from schubert_hf.cost import Cost
from schubert_hf.pruning.precision import Batch, exact
from schubert_hf.pruning.units import Group, find_groups
from schubert_hf.shape import Shape
from schubert_hf.training.objective import Objective

from .masks import Masks, Measured, Prices, Streams, by_group, keep_units, measure_units, price_units, sublayer_of

RANK = 1e-7  # eigenvalues of an input's second moments below that share of the largest count as 0


@dataclass(frozen=True)
class Knowledge:
    """How knowledge is weighed.

    Attributes:
        temperature: gamma, of the softmax of the predictions.
        representation: lambda, the weight of representational knowledge; the authors' for GLUE.
        heads: mu, the weight of whole heads. The authors' 64 multiplies the mean over a head's 64 entries: a sum.
    """

    temperature: float = 2.0
    representation: float = 2.5e-4
    heads: float = 1.0

    def of(self, group: Group, found: Measured) -> Tensor:
        """Section 3.2: 1/2 E[(dK/dm)^2] + lambda |what the unit adds to the stream|^2, shape (units,)."""
        knowledge = found.gradients.square().mean(0) / 2 + self.representation * found.outputs
        return knowledge * (self.heads if group.dimension == "a" else 1.0)


def prune_with_k_prune(
    objective: Objective,
    cost: Cost,
    budget: float,
    batches: Sequence[Batch],
    knowledge: Knowledge | None = None,
) -> PreTrainedModel:
    """A smaller model under the budget; the objective's model is not changed.

    Args:
        objective: with the dense model; labels are not used.
        cost: what the budget counts.
        batches: examples, on the model's device.

    Raises:
        BudgetError: heads and filters alone cannot meet the budget.
    """
    weigh, dense = knowledge or Knowledge(), objective.model
    prices = price_units(cost, Shape.of(dense.config), budget)
    left = budget - prices.fixed
    rest = {
        group: units
        for layer in range(len(dense.config.hidden_sizes))
        for group, units in find_groups(dense.config, "af").items()
        if group.layer == layer
    }
    model: PreTrainedModel = copy.deepcopy(dense).eval()
    with torch.no_grad():
        wanted = [objective.predict(dict(batch), dense).logits for batch in batches]
        ours, theirs = Streams(model, batches), Streams(dense, batches)
    for number in range(len(layers(dense))):
        for group in (Group("a", number), Group("f", number)):
            if group in rest:
                found = measure_knowledge(objective, model, rest, batches, wanted, weigh.temperature)
                masks = search_masks({group: weigh.of(group, known) for group, known in found.items()}, prices, left)
                left -= prices.of(group) * int(masks[group].sum())
                model = keep_units(model, {group: masks[group]})
                del rest[group]
            with torch.no_grad():
                if isinstance(sublayer_of(model, group).output, nn.Linear):
                    tune_output(sublayer_of(model, group).output, group, model, dense, ours, theirs)
                ours.advance(sublayer_of(model, group))
                theirs.advance(sublayer_of(dense, group))
    return model


def measure_knowledge(
    objective: Objective,
    model: PreTrainedModel,
    groups: Mapping[Group, int],
    batches: Sequence[Batch],
    wanted: Sequence[Mapping[str, Tensor]],
    temperature: float,
) -> dict[Group, Measured]:
    """Section 3.2: gradients of K_pred = gamma^2 KL(dense || model) by the masks, and what units add to the stream.

    As long as nothing is cut the gradients are 0, and representational knowledge decides alone.

    Args:
        groups: the units of this and the later sublayers.
        wanted: the dense model's logits by term, batch by batch.
    """

    def divergence(number: int, batch: Batch) -> Tensor:
        logits = objective.predict(dict(batch), model).logits
        terms = [objective.divergence(own, wanted[number][term], temperature) for term, own in logits.items()]
        return torch.stack(terms).sum()

    return measure_units(model, groups, batches, divergence)


def search_masks(knowledge: Mapping[Group, Tensor], prices: Prices, left: float) -> Masks:
    """Section 3.3: units stay in the order of their knowledge per FLOP, most first, up to the first without room.

    Args:
        knowledge: shape (units,) by group.
        left: FLOPs for these units.
    """
    density = torch.cat([values / prices.of(group) for group, values in knowledge.items()])
    price = torch.cat([torch.full_like(values, prices.of(group)) for group, values in knowledge.items()])
    order = density.argsort(descending=True, stable=True)
    stays = torch.zeros(len(order), dtype=torch.bool)
    stays[order[price[order].cumsum(0) <= left]] = True
    return by_group(stays, {group: len(values) for group, values in knowledge.items()})


def tune_output(
    output: nn.Linear, group: Group, model: PreTrainedModel, dense: PreTrainedModel, ours: Streams, theirs: Streams
) -> None:
    """Section 3.4: the output projection of a sublayer refit on the pruned model's own inputs, in place.

    The dense stream after the sublayer, less the model's own residual and the bias, is what it should give.
    """
    wanted = [t - x - output.bias for t, x in zip(theirs.sums(sublayer_of(dense, group)), ours.x, strict=True)]
    units = ours.units(sublayer_of(model, group))
    real = ours.real
    output.weight.copy_(
        fit_weight([x[r] for x, r in zip(units, real, strict=True)], [t[r] for t, r in zip(wanted, real, strict=True)])
    )


def fit_weight(units: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The W of least norm that minimises sum |W x - t|^2, shape (h, entries), in float64.

    Args:
        units: x, one tensor (tokens, entries) per batch.
        wanted: t, (tokens, h) each.
    """
    xx = torch.zeros(units[0].shape[1], units[0].shape[1], dtype=torch.float64)
    xt = torch.zeros(units[0].shape[1], wanted[0].shape[1], dtype=torch.float64)
    for x, t in zip(units, wanted, strict=True):
        xx += exact(x.mT @ x)
        xt += exact(x.mT @ t)
    values, vectors = torch.linalg.eigh(xx)
    # What single-precision sums cannot tell from 0 counts as 0.
    inverse = torch.where(values > RANK * values.max(), 1 / values, 0.0)
    solution: Tensor = vectors @ (inverse[:, None] * (vectors.mT @ xt))
    return solution.mT
