"""What criteria look at: gradients of the gates and mean squares of activations, on real text, nothing trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import Group
from ..training.objective import Objective
from .gates.alphas import Gates
from .moments import Batch, encode, real_tokens


def gate_gradients(objective: Objective, groups: Mapping[Group, int], batches: Sequence[Batch]) -> dict[Group, Tensor]:
    """dL/dalpha at alpha = 1 of every batch, L summed over the batch; shape (batches, units) by group, on the CPU.

    Args:
        objective: with the model, which is in evaluation mode and not changed.
        groups: units by group.
        batches: on the model's device.
    """
    model = objective.model
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gates = Gates(model.config, "".join(dict.fromkeys(group.dimension for group in groups))).to(model.device)
    rows: dict[Group, list[Tensor]] = {group: [] for group in groups}
    model.requires_grad_(False)
    try:
        for batch in batches:
            with gates.attached(model), torch.enable_grad():
                sums = objective(dict(batch))
                loss = torch.stack([sums[term] for term in objective.terms]).sum()
            gradients = torch.autograd.grad(loss, [gates[group] for group in groups])
            for group, gradient in zip(groups, gradients, strict=True):
                rows[group].append(gradient.detach().double().cpu())
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return {group: torch.stack(values) for group, values in rows.items()}


@torch.no_grad()
def mean_squares(model: Any, groups: Mapping[Group, int], batches: Sequence[Batch]) -> dict[Group, Tensor]:
    """Mean squares of the units' entries over real tokens, shape (units,) by group.

    Filters after their activation; keys as the queries they meet; values as the attention mixed them, those of a head
    together; channels as the mean over what all layers read.

    Args:
        model: in evaluation mode.
        groups: units by group, of h, f, a, k and v.
        batches: on the model's device.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        real = torch.empty(0)

        def keep(name: str, tensor: Tensor) -> None:
            squares = tensor[real].double().square()
            sums[name] = sums.get(name, torch.zeros(())) + squares.sum(0).cpu()
            counts[name] = counts.get(name, 0) + len(squares)

        def watch(name: str, module: nn.Module | None, *, output: bool = False) -> None:
            if isinstance(module, nn.Linear):
                hook = (
                    module.register_forward_hook(lambda _m, _a, out: keep(name, out))
                    if output
                    else module.register_forward_pre_hook(lambda _m, args: keep(name, args[0]))
                )
                stack.callback(hook.remove)

        for layer, block in enumerate(model.base_model.encoder.layer):
            watch(f"f{layer}", block.output.dense)
            watch(f"k{layer}", block.attention.self.query, output=True)
            watch(f"v{layer}", block.attention.output.dense)
            watch(f"h{layer}", block.intermediate.dense)
        for batch in batches:
            real = real_tokens(batch)
            encode(model, batch)
    means = {name: total / counts[name] for name, total in sums.items()}
    return {group: _by_unit(group, units, means) for group, units in groups.items()}


def _by_unit(group: Group, units: int, means: Mapping[str, Tensor]) -> Tensor:
    if group.dimension == "h":
        seen = [nn.functional.pad(mean, (0, units - len(mean))) for name, mean in means.items() if name[0] == "h"]
        return torch.stack(seen).mean(0)
    if group.dimension == "f":
        return means[f"f{group.layer}"]
    if group.dimension == "k":
        return means[f"k{group.layer}"].view(-1, units).mean(0)
    values = means[f"v{group.layer}"]
    return values.view(units, -1).mean(1) if group.dimension == "a" else values.view(-1, units).mean(0)
