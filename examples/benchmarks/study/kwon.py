"""Kwon et al. 2022, *A Fast Post-Training Pruning Framework for Transformers* (arXiv 2204.09656), without training.

Heads and filters have masks m. The loss is expanded to second order in 1 - m, with the empirical Fisher information

    I = 1/|D| sum over examples of g g^T,    g = dL/dm at m = 1

as its Hessian. Section 4.1: with I diagonal, the masks that keep most under a FLOPs budget, exactly. Section 4.2: with
I block-diagonal, swaps within a layer. Section 4.3: what stays is scaled by least squares, layer by layer, so that
each sublayer gives what the dense model's gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from schubert_hf.anatomy import layers
from schubert_hf.cost import BudgetError, Cost
from schubert_hf.heads import readers
from schubert_hf.pruning.precision import Batch, exact
from schubert_hf.pruning.units import Group, find_groups
from schubert_hf.shape import Shape
from schubert_hf.training.objective import Objective

from .masks import Masks, Prices, Streams, block_sums, by_group, keep_units, measure_units, price_units

DAMP = 1.0  # of the least squares, as the paper gives it to LSMR
LIMIT = 10.0  # a scale beyond it ends the tuning


def prune_with_kwon(objective: Objective, cost: Cost, budget: float, batches: Sequence[Batch]) -> PreTrainedModel:
    """A smaller model under the budget; the objective's model is not changed.

    Args:
        objective: with the dense model; the loss whose Fisher information is taken.
        cost: what the budget counts.
        batches: labelled examples, on the model's device.

    Raises:
        BudgetError: heads and filters alone cannot meet the budget.
    """
    model = objective.model
    groups = find_groups(model.config, "af")
    prices = price_units(cost, Shape.of(model.config), budget)

    def loss(_: int, batch: Batch) -> Tensor:
        sums = objective(dict(batch))
        return torch.stack([sums[term] for term in objective.terms]).sum()

    gradients = {group: found.gradients for group, found in measure_units(model, groups, batches, loss).items()}
    fisher = {group: rows.square().mean(0) for group, rows in gradients.items()}
    masks = search_masks(fisher, prices, budget)
    masks = {group: rearrange_mask(mask, gradients[group]) for group, mask in masks.items()}
    cut = keep_units(model, masks)
    tune_masks(cut, model, batches)
    return cut


def search_masks(fisher: Mapping[Group, Tensor], prices: Prices, budget: float) -> Masks:
    """Section 4.1, Algorithm 1: the masks that remove the least Fisher information within the budget.

    All numbers of heads are tried, each with as many filters as it leaves room for; of each kind the best stay.

    Args:
        fisher: diagonal of I, shape (units,) by group.
        budget: of everything, `prices.fixed` included.

    Raises:
        BudgetError: nothing fits.
    """
    ranked, kept = {}, {}
    for letter in "af":
        parts = [fisher[group] for group in fisher if group.dimension == letter]
        ranked[letter] = torch.cat([torch.zeros(0, dtype=torch.float64), *parts]).sort(descending=True, stable=True)
        kept[letter] = torch.cat([torch.zeros(1, dtype=torch.float64), ranked[letter].values.cumsum(0)])
    best, number = -1.0, {"a": 0, "f": 0}
    for heads in range(len(kept["a"])):
        left = budget - prices.fixed - heads * prices.head
        if left < 0:
            break
        filters = min(len(kept["f"]) - 1, int(left // prices.filter) if prices.filter else 0)
        total = float(kept["a"][heads] + kept["f"][filters])
        if total > best:
            best, number = total, {"a": heads, "f": filters}
    if best < 0:
        raise BudgetError("Nothing fits the budget. Give a larger one.")
    masks: Masks = {}
    for letter, count in number.items():
        stays = torch.zeros(len(ranked[letter].values), dtype=torch.bool)
        stays[ranked[letter].indices[:count]] = True
        masks |= by_group(stays, {group: len(values) for group, values in fisher.items() if group.dimension == letter})
    return masks


def rearrange_mask(mask: Tensor, gradients: Tensor) -> Tensor:
    """Section 4.2: swaps of a removed with a kept unit of the layer that lower (1 - m)^T I (1 - m); one greedy round.

    Args:
        mask: bool, shape (units,).
        gradients: of every example, shape (examples, units).
    """
    fisher = gradients.mT @ gradients / len(gradients)
    diagonal, gone = fisher.diagonal(), ~mask
    pull = fisher[:, gone].sum(1)  # I (1 - m)
    for unit in gone.nonzero().flatten().tolist():
        # By how much the sum changes when `unit` comes back and another goes in its place.
        change = diagonal[unit] - 2 * pull[unit] + diagonal + 2 * (pull - fisher[unit])
        change[gone] = 0.0
        other = int(change.argmin())
        if float(change[other]) < 0:
            gone[unit], gone[other] = False, True
            pull = pull + fisher[other] - fisher[unit]
    return ~gone


@torch.no_grad()
def tune_masks(
    cut: PreTrainedModel, dense: PreTrainedModel, batches: Sequence[Batch], *, damp: float = DAMP, limit: float = LIMIT
) -> None:
    """Section 4.3: scales what stays of each sublayer, first to last, towards the dense stream after it; in place.

    Sublayer inputs are the cut model's own. A solution with a scale outside [-limit, limit] is discarded and ends the
    tuning. Where only the first token of the last layer is read, the last sublayer is fit on that alone.
    """
    was_training = dense.training
    cut.eval()
    dense.eval()
    ours, theirs = Streams(cut, batches), Streams(dense, batches)
    own_layers, first_alone = layers(cut), all(reader.source != "stream" for reader in readers(cut))
    stopped = False
    for number, (own, whole) in enumerate(zip(own_layers, layers(dense), strict=True)):
        for sublayer, dense_sublayer in ((own.attention, whole.attention), (own.filters, whole.filters)):
            output: nn.Linear = sublayer.output
            if isinstance(output, nn.Linear) and not stopped:
                last = number == len(own_layers) - 1 and sublayer is own.filters
                seen = [_first_tokens(real) if last and first_alone else real for real in ours.real]
                wanted = [t - x - output.bias for t, x in zip(theirs.sums(dense_sublayer), ours.x, strict=True)]
                units = [x[chosen] for x, chosen in zip(ours.units(sublayer), seen, strict=True)]
                rest = [t[chosen] for t, chosen in zip(wanted, seen, strict=True)]
                count = sublayer.heads or output.in_features
                scales = fit_scales(units, rest, output.weight, count, damp)
                stopped = not bool((scales.abs() <= limit).all())
                if not stopped:
                    output.weight.mul_(scales.repeat_interleave(output.in_features // count).to(output.weight))
            ours.advance(sublayer)
            theirs.advance(dense_sublayer)
    dense.train(was_training)


def fit_scales(units: Sequence[Tensor], wanted: Sequence[Tensor], weight: Tensor, count: int, damp: float) -> Tensor:
    """min over s of |A s - b|^2 + damp^2 |s - 1|^2, with A's column u what unit u adds to the stream.

    Args:
        units: what the projection reads, one tensor (tokens, entries) per batch, units first.
        wanted: b, what it should give, without its bias; (tokens, h) each.
        weight: of the projection, shape (h, entries).
        count: number of units.

    Returns:
        s in float64, shape (units,).
    """
    entries, w = weight.shape[1], exact(weight)
    xx, xb = torch.zeros(entries, entries, dtype=torch.float64), torch.zeros(entries, len(w), dtype=torch.float64)
    for x, b in zip(units, wanted, strict=True):
        xx += exact(x.mT @ x)
        xb += exact(x.mT @ b)
    gram = block_sums(xx * (w.mT @ w), count)  # A^T A
    right = (xb * w.mT).sum(1).view(count, -1).sum(1)  # A^T b
    change: Tensor = torch.linalg.solve(gram + damp**2 * torch.eye(count, dtype=torch.float64), right - gram.sum(1))
    return 1 + change


def _first_tokens(real: Tensor) -> Tensor:
    first = torch.zeros_like(real)
    first[:, 0] = True
    return first
