"""Evaluation shared out among the processes: held-out losses, a prediction for each example, the unigram yardstick."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.stream import IGNORED, Batch, Collator, ExampleStream, for_stream
from ..run.progress import progress_bar
from .micro_batches import by_length
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
    """Mean losses and accuracies over the first `examples` of a stream, by default all; every process must call.

    The stream should not be shuffled: then every call sees the same examples with the same masks.

    Args:
        objective: holds the model; not prepared.
        batch_size: examples per process and forward pass.

    Returns:
        `{"mlm": loss, "mlm_accuracy": fraction, "nsp": ..., "nsp_accuracy": ..., "loss": sum of the losses}`.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite.
    """
    total = min(examples or len(stream.examples), len(stream.examples))
    with _own_batches(accelerator, objective, stream, for_stream(collator), total, batch_size, description) as batches:
        sums = _sum_over_batches(accelerator, objective, batches)
    counts = {name: max(1.0, sums[f"{name}_count"]) for name in objective.terms}
    losses = {name: sums[name] / count for name, count in counts.items()}
    loss = sum(losses.values())
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"{description}: the held-out loss is {loss}. Look for NaN in the weights, and at the data."
        )
    accuracies = {f"{name}_accuracy": sums[f"{name}_correct"] / count for name, count in counts.items()}
    return {**losses, "loss": loss, **accuracies}


def mean_loss(accelerator: Accelerator, objective: Objective, batches: Iterable[Batch]) -> float:
    """The sum of an objective's mean losses over all processes' batches; infinite where a loss is not finite.

    Args:
        accelerator: every process must call.
        objective: holds the model, which is on the device; not prepared.
        batches: this process's share, which may be none.
    """
    was_training = objective.training
    objective.eval()
    with torch.no_grad(), accelerator.autocast():
        sums = _sum_over_batches(
            accelerator, objective, (send_to_device(batch, accelerator.device) for batch in batches)
        )
    objective.train(was_training)
    loss = sum(sums[name] / max(1.0, sums[f"{name}_count"]) for name in objective.terms)
    return loss if math.isfinite(loss) else math.inf


def _sum_over_batches(accelerator: Accelerator, objective: Objective, batches: Iterable[Batch]) -> dict[str, float]:
    """Losses, right predictions and counts, term by term, of all processes together."""
    sums = {f"{name}{kind}": 0.0 for name in objective.terms for kind in ("", "_correct", "_count")}
    for batch in by_length(batches, accelerator.device):
        for name, count in objective.count(batch).items():
            sums[f"{name}_count"] += count
        for name, value in objective(batch).items():
            sums[name] += float(value)
    reduced = accelerator.reduce(torch.tensor(list(sums.values()), device=accelerator.device), reduction="sum")
    return dict(zip(sums, reduced.tolist(), strict=True))


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
        accelerator, objective, batch_size, description: see `evaluate`.
        examples: the set, by number. Its columns need not hold labels.
        collator: makes batches of them.

    Returns:
        By term one float32 tensor per example on the CPU, in the order of the set, the same on every process: of shape
        (labels,), or (seq,) for a head that predicts tokens; seq is then that of the example's batch.
    """
    total, processes = len(examples), accelerator.num_processes
    rows: dict[str, list[Any]] = {term: [] for term in objective.terms}
    with _own_batches(accelerator, objective, examples, collator, total, batch_size, description) as batches:
        for batch in batches:
            predicted = objective.predict(batch).logits
            for term in objective.terms:
                rows[term].extend(predicted[term].float().cpu().numpy())
    # gather_object chains the processes' lists, so row i is that of example order[i].
    order = [number for first in range(processes) for number in range(first, total, processes)]
    found: dict[str, list[Tensor]] = {}
    for term, values in rows.items():
        by_number = dict(zip(order, gather_object(values), strict=True))
        found[term] = [torch.from_numpy(by_number[number]) for number in range(total)]
    return found


@contextlib.contextmanager
def _own_batches(
    accelerator: Accelerator,
    objective: Objective,
    examples: Any,
    collate: Any,
    total: int,
    batch_size: int,
    description: str,
) -> Iterator[Iterable[Batch]]:
    """The own share of the first `total` examples in batches on the device; inside, nothing is trained."""
    share = range(accelerator.process_index, total, accelerator.num_processes)
    loader: DataLoader[Any] = DataLoader(
        examples,
        batch_sampler=[list(share[i : i + batch_size]) for i in range(0, len(share), batch_size)],
        collate_fn=collate,
    )
    was_training = objective.training
    objective.to(accelerator.device).eval()
    with torch.no_grad(), accelerator.autocast():
        yield (send_to_device(batch, accelerator.device) for batch in progress_bar(accelerator, loader, description))
    objective.train(was_training)


def unigram_loss(
    pairs: Dataset,
    held_out: ExampleStream,
    collator: Collator,
    *,
    vocab_size: int,
    special_ids: Sequence[int] = (),
) -> float:
    """Cross-entropy, in nats per token, of the training text's unigram distribution on the held-out masked tokens.

    The tokens are those that `evaluate` scores with the same stream and collator. Counts are smoothed by one.
    """
    counts = torch.ones(vocab_size, dtype=torch.float64)
    for batch in pairs.with_format("arrow").iter(batch_size=4096):
        ids = batch["input_ids"].combine_chunks().flatten().to_numpy()
        counts += torch.bincount(torch.from_numpy(ids.astype("int64")), minlength=vocab_size)
    counts[list(special_ids)] = 0
    log_probabilities = (counts / counts.sum()).log()  # (vocab,)
    total, number = 0.0, 0
    loader = DataLoader(
        held_out, batch_size=64, sampler=range(len(held_out.examples)), collate_fn=for_stream(collator)
    )
    for batch in loader:
        labels = batch["labels"][batch["labels"] != IGNORED]
        total -= float(log_probabilities[labels].sum())
        number += len(labels)
    return total / max(1, number)
