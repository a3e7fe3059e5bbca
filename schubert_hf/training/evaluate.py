"""The mean loss over held-out examples, shared out among the processes."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from ..data.stream import Collator, ExampleStream, for_stream
from ..run.progress import progress_bar
from .objective import Objective
from .step import NonFiniteLossError


def evaluate(
    accelerator: Accelerator,
    objective: Objective,
    stream: ExampleStream,
    collator: Collator,
    *,
    batch_size: int,
    examples: int | None = None,
    description: str = "evaluating",
) -> dict[str, float]:
    """Mean losses and accuracies over the first `examples` of a stream.

    The stream should not be shuffled: then every call sees the same examples with the same masks.

    Args:
        accelerator: decides devices, processes and precision; every process must call.
        objective: holds the model; not prepared.
        stream: held-out examples.
        collator: masks and batches them.
        batch_size: examples per process and forward pass.
        examples: how many; None: all.
        description: of the progress bar.

    Returns:
        `{"mlm": loss, "mlm_accuracy": fraction, "nsp": ..., "nsp_accuracy": ..., "loss": sum of the losses}`.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite.
    """
    total = min(examples or len(stream.examples), len(stream.examples))
    share = list(range(total))[accelerator.process_index :: accelerator.num_processes]
    loader: DataLoader[dict[str, Any]] = DataLoader(
        stream,
        batch_sampler=[share[i : i + batch_size] for i in range(0, len(share), batch_size)],
        collate_fn=for_stream(collator),
    )
    sums = {f"{name}{kind}": 0.0 for name in objective.terms for kind in ("", "_correct", "_count")}
    was_training = objective.training
    objective.to(accelerator.device).eval()
    with torch.no_grad(), accelerator.autocast():
        for batch in progress_bar(accelerator, loader, description):
            for name, count in objective.count(batch).items():
                sums[f"{name}_count"] += count
            for name, value in objective(send_to_device(batch, accelerator.device)).items():
                sums[name] += float(value)
    objective.train(was_training)
    reduced = accelerator.reduce(torch.tensor(list(sums.values()), device=accelerator.device), reduction="sum")
    means = _means(objective.terms, dict(zip(sums, reduced.tolist(), strict=True)))
    if not math.isfinite(means["loss"]):
        raise NonFiniteLossError(
            f"{description}: the held-out loss is {means['loss']}. Look for NaN in the weights, and at the data."
        )
    return means


def _means(terms: tuple[str, ...], sums: dict[str, float]) -> dict[str, float]:
    losses = {name: sums[name] / max(1.0, sums[f"{name}_count"]) for name in terms}
    accuracies = {f"{name}_accuracy": sums[f"{name}_correct"] / max(1.0, sums[f"{name}_count"]) for name in terms}
    return {**losses, "loss": sum(losses.values()), **accuracies}
