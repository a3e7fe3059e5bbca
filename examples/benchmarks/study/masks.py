"""Heads and filters as units with a mask, for methods of the literature that remove nothing else.

A mask of 1 or 0 multiplies what the output projection of a sublayer reads: the values of a head, or a filter after its
activation. What the loss and the stream owe to a unit is measured at a mask of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from schubert_hf.anatomy import Sublayer, embeddings, layers
from schubert_hf.cost import BudgetError, Cost, format_size, unit_cost
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.precision import Batch, exact
from schubert_hf.pruning.surgery import compact
from schubert_hf.pruning.units import Group
from schubert_hf.shape import Shape
from schubert_hf.training.objective import real_tokens

Loss = Callable[[int, Batch], Tensor]  # from the number of a batch and the batch to a sum over its examples
Masks = dict[Group, Tensor]  # bool, shape (units,): True stays


@dataclass(frozen=True)
class Prices:
    """What one head and one filter cost, the same in all layers, and what is left without any; all in one unit."""

    head: float
    filter: float
    fixed: float

    def of(self, group: Group) -> float:
        return self.head if group.dimension == "a" else self.filter


def price_units(cost: Cost, shape: Shape, budget: float) -> Prices:
    """The prices of a shape's units.

    Raises:
        ValueError: they differ between layers; the papers know one price of a head, and one of a filter.
        BudgetError: the model is above the budget even without heads and filters.
    """
    found: dict[str, set[float]] = {"a": set(), "f": set()}
    for letter, counts in (("a", shape.head_counts), ("f", shape.filter_sizes)):
        found[letter] = {unit_cost(cost, shape, letter, layer) for layer, count in enumerate(counts) if count}
    if any(len(prices) > 1 for prices in found.values()):
        raise ValueError("Heads or filters of different layers differ in price; give a model of equal layers.")
    none = (0,) * len(shape.head_counts)
    head, filter_ = (max(found[letter], default=0.0) for letter in "af")
    prices = Prices(head, filter_, fixed=cost(replace(shape, head_counts=none, filter_sizes=none)))
    if prices.fixed > budget:
        raise BudgetError(
            f"The budget {format_size(budget)} is below {format_size(prices.fixed)} {cost.unit}, which is left "
            "without heads and filters. Give a larger one."
        )
    return prices


@dataclass(frozen=True)
class Measured:
    """Of one sublayer.

    Attributes:
        gradients: of the loss of each example by the mask of each unit, shape (examples, units).
        outputs: |what a unit adds to the stream|^2, averaged over channels and real tokens, shape (units,).
    """

    gradients: Tensor
    outputs: Tensor


def measure_units(
    model: PreTrainedModel, groups: Mapping[Group, int], batches: Sequence[Batch], loss: Loss
) -> dict[Group, Measured]:
    """What the loss and the stream owe to each head ("a") and filter ("f"); one backward pass per batch.

    Args:
        model: not changed.
        groups: of "a" and "f"; those left out are not masked, and cost no gradient.
        batches: on the model's device.
        loss: of the model; must be a sum over examples that do not see each other.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training, outputs = model.training, {group: sublayer_of(model, group).output for group in groups}
    rows: dict[Group, list[Tensor]] = {group: [] for group in groups}
    sums = {group: torch.zeros(units, dtype=torch.float64) for group, units in groups.items()}
    tokens = 0
    model.eval().requires_grad_(False)
    try:
        for number, batch in enumerate(batches):
            real, masks = real_tokens(batch), {}
            tokens += int(real.sum())
            with ExitStack() as stack, torch.enable_grad():
                for group, linear in outputs.items():
                    watched = _Mask(linear, len(real), groups[group])
                    stack.callback(linear.register_forward_pre_hook(watched).remove)
                    masks[group] = watched
                gradients = torch.autograd.grad(loss(number, batch), [mask.values for mask in masks.values()])
            for (group, mask), gradient in zip(masks.items(), gradients, strict=True):
                rows[group].append(exact(gradient))
                sums[group] += mask.squares(real)
    finally:
        model.train(was_training)
        for parameter in trainable:
            parameter.requires_grad_(True)
    return {group: Measured(torch.cat(rows[group]), sums[group] / tokens) for group in groups}


class _Mask:
    """A mask for each example and unit of one sublayer, all 1; called as the hook of the output projection."""

    def __init__(self, linear: nn.Linear, examples: int, units: int) -> None:
        self.linear = linear
        self.values = torch.ones(examples, units, dtype=linear.weight.dtype, device=linear.weight.device)
        self.values.requires_grad_(True)
        self.x = torch.empty(0)

    def __call__(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.x = args[0].detach()  # (batch, seq, entries)
        size = self.x.shape[-1] // self.values.shape[1]
        return (args[0] * self.values.repeat_interleave(size, dim=1)[:, None], *args[1:])

    def squares(self, real: Tensor) -> Tensor:
        """Sum over real tokens, mean over channels, of the squares of what each unit adds; shape (units,)."""
        x, weight = self.x[real], self.linear.weight.detach()  # (tokens, entries), (h, entries)
        units = self.values.shape[1]
        if units == x.shape[1]:
            return exact(x.square().sum(0) * weight.square().mean(0))
        return block_sums(exact(x.mT @ x) * exact(weight.mT @ weight), units).diagonal() / len(weight)


def by_group(values: Tensor, sizes: Mapping[Group, int]) -> Masks:
    """The parts of a vector over the units of all groups, by group."""
    return dict(zip(sizes, torch.split(values, list(sizes.values())), strict=True))


def block_sums(matrix: Tensor, units: int) -> Tensor:
    """Sums of the blocks of a square matrix whose rows and columns run over units first; shape (units, units)."""
    return matrix.view(units, len(matrix) // units, units, -1).sum((1, 3))


def sublayer_of(model: PreTrainedModel, group: Group) -> Sublayer:
    """The sublayer whose units a group of "a" or "f" holds."""
    assert group.layer is not None
    layer = layers(model)[group.layer]
    return layer.attention if group.dimension == "a" else layer.filters


def keep_units(model: PreTrainedModel, masks: Mapping[Group, Tensor]) -> PreTrainedModel:
    """A new, smaller model with the units whose mask is True."""
    kept = {group: tuple(mask.nonzero().flatten().tolist()) for group, mask in masks.items()}
    return compact(model, PruningPlan.from_kept(Shape.of(model.config), kept))


class Streams:
    """A model's stream on all batches, sublayer by sublayer.

    Attributes:
        x: the stream before the next sublayer, one tensor of shape (batch, seq, h) per batch.
        real: which tokens are no padding, one bool tensor of shape (batch, seq) per batch.
    """

    def __init__(self, model: PreTrainedModel, batches: Iterable[Batch]) -> None:
        self.x, self.real, self.masks = [], [], []
        names, module = ("input_ids", "token_type_ids"), embeddings(model).module
        for batch in batches:
            x = module(**{name: batch[name] for name in names if name in batch})
            self.x.append(x)
            self.real.append(real_tokens(batch))
            self.masks.append(create_bidirectional_mask(model.config, x, batch.get("attention_mask")))

    def units(self, sublayer: Sublayer) -> list[Tensor]:
        """What the output projection reads, shape (batch, seq, entries)."""
        return [sublayer.inner(x, mask) for x, mask in zip(self.x, self.masks, strict=True)]

    def sums(self, sublayer: Sublayer) -> list[Tensor]:
        """The stream after the sublayer, before its LayerNorm."""
        return [sublayer.output(units) + x for units, x in zip(self.units(sublayer), self.x, strict=True)]

    def advance(self, sublayer: Sublayer) -> None:
        """Goes to the next sublayer."""
        units: Any = self.units(sublayer)
        self.x = [sublayer.ending(own, x) for own, x in zip(units, self.x, strict=True)]
