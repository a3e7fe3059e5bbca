"""What a model says of every example of a set, in the set's order, on however many processes."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.stream import Collator
from ..run.progress import progress_bar
from ..training.objective import Objective


def predict(
    accelerator: Accelerator,
    objective: Objective,
    examples: Any,
    collator: Collator,
    *,
    batch_size: int,
    description: str = "predicting",
) -> dict[str, list[Tensor]]:
    """The logits of every example, by term.

    Args:
        accelerator: decides devices, processes and precision; every process must call.
        objective: holds the model; not prepared.
        examples: the set, by number. Its columns need not hold labels.
        collator: makes batches of them.
        batch_size: examples per process and forward pass.
        description: of the progress bar.

    Returns:
        By term one float32 tensor per example on the CPU, in the order of the set, the same on every process: of shape
        (labels,), or (seq,) where the head speaks of tokens; seq is then that of the example's batch.
    """
    shares = [range(first, len(examples), accelerator.num_processes) for first in range(accelerator.num_processes)]
    own = shares[accelerator.process_index]
    loader: DataLoader[Any] = DataLoader(
        examples,
        batch_sampler=[own[i : i + batch_size] for i in range(0, len(own), batch_size)],
        collate_fn=collator,
    )
    rows: dict[str, list[Any]] = {term: [] for term in objective.terms}
    was_training = objective.training
    objective.to(accelerator.device).eval()
    with torch.no_grad(), accelerator.autocast():
        for batch in progress_bar(accelerator, loader, description):
            predicted = objective.predict(send_to_device(batch, accelerator.device)).logits
            for term in objective.terms:
                rows[term].extend(predicted[term].float().cpu().numpy())
    objective.train(was_training)
    # gather_object chains the processes' lists, so row i is that of example order[i].
    order = [number for share in shares for number in share]
    found: dict[str, list[Tensor]] = {}
    for term, values in rows.items():
        by_number = dict(zip(order, gather_object(values), strict=True))
        found[term] = [torch.from_numpy(by_number[number]) for number in range(len(examples))]
    return found
