"""Criteria of the literature that only the ablation compares: Taylor, Fisher and activation norms, untrained.

Each is a small function from what is measured on real text to a score; `schubert_hf.pruning.criteria` has the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from schubert_hf.anatomy import layers
from schubert_hf.pruning.criteria import Scores
from schubert_hf.pruning.gates import Gates
from schubert_hf.pruning.precision import Batch
from schubert_hf.pruning.units import Group
from schubert_hf.training.objective import Objective, inputs_of, real_tokens


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

        for number, layer in enumerate(layers(model)):
            watch(f"f{number}", layer.filters.output)
            watch(f"k{number}", layer.attention.inputs.get("query"), output=True)
            watch(f"v{number}", layer.attention.output)
            watch(f"h{number}", layer.filters.inputs.get("filter"))
        for batch in batches:
            real = real_tokens(batch)
            model.base_model(**inputs_of(batch))
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


def taylor_importance(gradients: Mapping[Group, Tensor]) -> Scores:
    """|sum of dL/dalpha|: what the loss changes by to first order when the unit's gate goes from 1 to 0.

    Molchanov et al. 2017 (arXiv 1611.06440); Michel et al. 2019 (arXiv 1905.10650) for heads.

    Args:
        gradients: of the loss by the gates, one row per batch, shape (batches, units) by group.
    """
    return {group: rows.sum(0).abs() for group, rows in gradients.items()}


def fisher_importance(gradients: Mapping[Group, Tensor]) -> Scores:
    """Sum of (dL/dalpha)^2: the diagonal of the gates' Fisher information, a second-order change of the loss.

    Theis et al. 2018 (arXiv 1801.05787); the smaller the batches, the nearer to the sum over examples.

    Args:
        gradients: as for `taylor_importance`.
    """
    return {group: rows.square().sum(0) / 2 for group, rows in gradients.items()}


def activation_importance(activations: Mapping[Group, Tensor]) -> Scores:
    """The root mean square of what a unit puts out: Hu et al. 2016 (arXiv 1607.03250), with the square for the zeros.

    Args:
        activations: mean squares of the unit's entries on real text, shape (units,) by group.
    """
    return {group: squares.sqrt() for group, squares in activations.items()}
