"""Alphas: trainable scales on a model's units, attached to it, folded into the weights afterwards.

Khetan & Karnin 2020, section 3, multiply the alphas into the six matrices of each layer (see `layers`). No gradient of
any weight is needed for theirs (see `linear`).

Decisions that the paper leaves open: a bias is scaled with its row. Removing a channel is more than an alpha of 0: the
channel also leaves the residual stream and LayerNorm's statistics. A layer that is removed is passed by, its
LayerNorms included. Both are `surgery`'s work.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...anatomy import Axis, axis_width, place_of_tensor
from ...configuration_schubert import SchuBertConfig
from ...data.stream import Batch
from ...errors import SchuBertError
from ...shape import Shape
from ...training.objective import Objective
from ..precision import exact
from ..units import Group, find_groups
from .layers import gated


class FoldError(SchuBertError):
    """Alphas that cannot be multiplied into the weights: the result would not be finite."""


class Gates(nn.Module):
    """One vector of alphas per group of units, all 1 at first: alpha_h and alpha_e for the network, others per layer.

    Args:
        config: of the model to gate.
        dimensions: the letters whose units get alphas; the others count as 1.
    """

    def __init__(self, config: SchuBertConfig, dimensions: str = "hfakv") -> None:
        super().__init__()
        self.groups = find_groups(config, dimensions)
        self.alphas = nn.ParameterDict({str(group): nn.Parameter(torch.ones(n)) for group, n in self.groups.items()})
        self._shape = Shape.of(config)

    def __getitem__(self, group: Group) -> nn.Parameter:
        """The alphas of a group, shape (units,)."""
        alpha: nn.Parameter = self.alphas[str(group)]
        return alpha

    def values(self) -> dict[Group, Tensor]:
        """A detached copy of the alphas by group."""
        return {group: self[group].detach().clone() for group in self.groups}

    def summary(self) -> dict[str, list[float]]:
        """Smallest, mean and largest alpha by the name of the group, rounded for a log."""
        numbers = {group: (alpha.min(), alpha.mean(), alpha.max()) for group, alpha in self.values().items()}
        return {str(group): [round(float(number), 4) for number in three] for group, three in numbers.items()}

    def drift(self) -> dict[str, float]:
        """How far the alphas have moved from 1: the largest distance of all, and by letter."""
        drift = {"drift": 0.0}
        for group, alpha in self.values().items():
            distance = float((alpha - 1).abs().max())
            for name in ("drift", f"drift_{group.dimension}"):
                drift[name] = max(drift.get(name, 0.0), distance)
        return drift

    def penalty(self, weights: Mapping[Group, float]) -> Tensor:
        """sum over groups of beta |alpha|_1, by the sum of all beta: 1 when every alpha is 1, 0 when all are 0.

        Under Adam, gamma and beta set a price and not a speed: every alpha moves by about the learning rate a step,
        down where one unit of it saves the loss less than gamma beta / (sum of all beta), in nats, and else up.
        `weights` is beta by group (see `cost.penalty_weights`).
        """
        total = sum(weights[group] * units for group, units in self.groups.items())
        return torch.stack([weights[group] * self[group].abs().sum() for group in self.groups]).sum() / (total or 1.0)

    def factor(self, axis: Axis) -> Tensor | None:
        """What the entries of an axis are multiplied by, shape (width of the axis,); None where no alpha stands.

        The key/query and value axes run over heads first: entry a * k + n is multiplied by alpha_a[a] alpha_k[n].
        """
        if axis.kind == "embedding" and self._shape.embedding_size is not None:
            return self._find("e", None)
        if axis.kind in ("hidden", "embedding"):
            alpha = self._find("h", None)
            return None if alpha is None else alpha[: axis_width(self._shape, axis)]
        if axis.kind in ("filter", "layer"):
            return self._find("f" if axis.kind == "filter" else "l", axis.layer)
        heads = self._find("a", axis.layer)
        entries = self._find("k" if axis.kind == "key_query" else "v", axis.layer)
        if heads is None:
            return None if entries is None else entries.repeat(self._shape.head_counts[axis.layer])
        if entries is None:
            return heads.repeat_interleave(getattr(self._shape, f"{axis.kind}_sizes")[axis.layer])
        return (heads[:, None] * entries).flatten()

    def attached(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Within the block, `model` computes with these alphas, its weights frozen; see `layers.gated`."""
        return gated(model, self.factor)

    def _find(self, dimension: str, layer: int | None) -> Tensor | None:
        group = Group(dimension, layer)
        return self[group] if group in self.groups else None


class GatedObjective(Objective):
    """An objective whose model computes with gates; as one module, so that data-parallel training sees the alphas."""

    def __init__(self, objective: Objective, gates: Gates) -> None:
        super().__init__(objective.model)
        self.terms = objective.terms
        self.inner = objective
        self.gates = gates

    def count(self, batch: Batch) -> dict[str, int]:
        return self.inner.count(batch)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with self.gates.attached(self.model):
            result: dict[str, Tensor] = self.inner(batch)
            return result


def fold_tensors(model: PreTrainedModel, gates: Gates) -> dict[str, Tensor]:
    """The parameters of `model` by name, with the alphas multiplied into the gated matrices and their row biases.

    Together they compute what the gated model computes, as long as no channel is removed (that is `compact`'s work).
    The model is not changed; what no alpha multiplies is its own.

    Raises:
        FoldError: an alpha is not finite, or a weight would not be.
    """
    for group, alpha in gates.values().items():
        if not bool(torch.isfinite(alpha).all()):
            raise FoldError(
                f"The alphas of group `{group}` are not all finite; they cannot be folded. Train them anew."
            )
    return {
        name: _fold(name, tensor.detach(), gates) if place_of_tensor(name).row.gated else tensor.detach()
        for name, tensor in model.named_parameters(remove_duplicate=False)
    }


def _fold(name: str, tensor: Tensor, gates: Gates) -> Tensor:
    wide = exact(tensor)  # rounded once, however many factors there are
    where = place_of_tensor(name)
    for dim, axis in enumerate(where.axes(tensor.ndim)):
        factor = gates.factor(axis) if axis is not None else None
        if factor is not None:
            wide = wide * exact(factor).view(-1, *[1] * (tensor.ndim - 1 - dim))
    if where.row.part == "output" and where.layer is not None:
        factor = gates.factor(Axis("layer", where.layer))
        wide = wide if factor is None else wide * exact(factor)
    folded = wide.to(tensor)
    if not bool(torch.isfinite(folded).all()):
        raise FoldError(
            f"`{name}` is not finite in {tensor.dtype} with its alphas folded in. "
            "Prune the model in float32 (`model.float()`), and look for NaN in its weights."
        )
    return folded
