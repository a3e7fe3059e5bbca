"""compact(model, plan): a new model that really is smaller. The input is not touched."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from ..anatomy import UnknownTensorError, axis_width, move_layer, place_of_tensor, rebuild
from ..shape import with_shape
from .plan import PruningPlan
from .precision import exact


def compact(
    model: PreTrainedModel, plan: PruningPlan, *, tensors: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """Builds the model that is left when a plan's units go.

    Every tensor keeps the indices that the plan keeps along its axes (see `anatomy.TABLE`). Since the softmax scale is
    1/sqrt(k) of the new k, the queries take up the ratio: multiplied by sqrt(k_new / k_old), the scores stay as they
    were.

    Args:
        tensors: parameters to cut instead of the model's own, by name, e.g. with alphas folded in.

    Returns:
        A new model of the same class, dtype, device and mode, all of it trainable. Without cuts in h, a model whose
        removed units carried alphas of 0 computes the same; for h LayerNorm's statistics are from then on those of the
        kept channels.

    Raises:
        PlanError: the plan belongs to a model of another shape.
        UnknownTensorError: the model has a tensor that the table does not describe.
    """
    plan.check_source(model.config)
    check_tensors(model)
    smaller = rebuild(model, with_shape(model.config, plan.shape))
    parameters = dict(tensors) if tensors is not None else dict(model.named_parameters(remove_duplicate=False))
    cuts = {}
    for name, tensor in parameters.items():
        layer = place_of_tensor(name).layer
        if layer is None or layer in plan.layers:
            new_name = name if layer is None else move_layer(name, plan.layers.index(layer))
            cuts[new_name] = cut_tensor(name, tensor.detach(), plan)
    # A sublayer without heads or filters has no such tensor at all. Assigned, each keeps its dtype and device.
    smaller.load_state_dict({name: cut for name, cut in cuts.items() if cut.numel()}, strict=True, assign=True)
    smaller.tie_weights()
    return smaller.to(model.device).train(model.training)


def check_tensors(model: PreTrainedModel) -> None:
    """Checks that the table describes every tensor of a model, and that each is as wide as the config says.

    Raises:
        UnknownTensorError: a tensor is unknown or has another width.
    """
    depth = len(model.config.hidden_sizes)
    for name, tensor in model.state_dict().items():
        for dim, axis in enumerate(place_of_tensor(name).axes(tensor.ndim)):
            if axis is None:
                continue
            width = axis_width(model.config, axis) if axis.layer < depth else 0
            if tensor.shape[dim] != width:
                raise UnknownTensorError(
                    f"`{name}` has the shape {tuple(tensor.shape)}, but by the config its axis {dim} is {width} wide. "
                    "Build the model from its config, then prune it."
                )


def cut_tensor(name: str, tensor: Tensor, plan: PruningPlan) -> Tensor:
    """One parameter after the cut, as a new tensor."""
    cut = tensor
    where = place_of_tensor(name)
    for dim, axis in enumerate(where.axes(tensor.ndim)):
        if axis is not None and len(entries := plan.kept(axis)) < tensor.shape[dim]:
            cut = cut.index_select(dim, entries.to(tensor.device))
    if where.row.part == "query" and where.layer is not None:
        kept = plan.key_query[where.layer][0] if plan.key_query[where.layer] else ()  # all heads keep as many
        ratio = len(kept) / plan.source.key_query_sizes[where.layer]
        cut = (exact(cut) * math.sqrt(ratio)).to(cut) if ratio != 1 else cut
    return cut.clone() if cut is tensor else cut
