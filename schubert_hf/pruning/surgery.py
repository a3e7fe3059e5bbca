"""compact(model, plan): a new model that really is smaller. The input is not touched."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .plan import PruningPlan
from .units import tensor_axes


def compact(
    model: PreTrainedModel, plan: PruningPlan, *, tensors: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """Builds the model that is left when a plan's units go.

    Every tensor keeps the indices that the plan keeps along its axes (see `units.TABLE`). Since the softmax scale is
    1/sqrt(k) of the new k, the queries take up the ratio: multiplied by sqrt(k_new / k_old), the scores stay as they were.

    Args:
        model: a SchuBERT of any class.
        plan: made for a model of this shape.
        tensors: parameters to cut instead of the model's own, by name, e.g. with alphas folded in.

    Returns:
        A new model of the same class, dtype, device and mode. Without cuts in h, a model whose removed units carried alphas
        of 0 computes the same; for h LayerNorm's statistics are from then on those of the kept channels.

    Raises:
        PlanError: the plan belongs to a model of another shape.
        UnknownTensorError: the model has a tensor that the table does not describe.
    """
    plan.check_source(model.config)
    config = copy.deepcopy(model.config)
    for name, sizes in plan.shape.lists().items():
        setattr(config, name, sizes)
    pooled = {"add_pooling_layer": model.pooler is not None} if hasattr(model, "pooler") else {}
    parameters = dict(tensors) if tensors is not None else dict(model.named_parameters(remove_duplicate=False))
    # Not on the meta device: buffers that no checkpoint holds (position ids) are made here.
    smaller = type(model)(config, **pooled).to(dtype=model.dtype)
    state = {}
    for name, tensor in parameters.items():
        cut = cut_tensor(name, tensor.detach(), plan)
        if cut.numel():  # a sublayer without heads or filters has no such tensor at all
            state[name] = cut
    smaller.load_state_dict(state, strict=True)
    smaller.tie_weights()
    return smaller.to(model.device).train(model.training)


def cut_tensor(name: str, tensor: Tensor, plan: PruningPlan) -> Tensor:
    """One parameter after the cut."""
    for dim, axis in enumerate(tensor_axes(name, tensor.ndim)):
        if axis is not None:
            tensor = tensor.index_select(dim, plan.kept(axis).to(tensor.device))
    if ".self.query." in name:
        layer = int(name.split("encoder.layer.")[1].split(".")[0])
        ratio = plan.shape.key_query_sizes[layer] / plan.source.key_query_sizes[layer]
        tensor = (tensor.double() * math.sqrt(ratio)).to(tensor.dtype) if ratio != 1 else tensor
    return tensor


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
