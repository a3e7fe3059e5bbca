"""Held-out losses: of a model, and of one that knows only how often each word piece occurs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset
from torch.utils.data import DataLoader

from ..data.stream import IGNORED, Collator, ExampleStream, for_stream
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
    sums = dict(zip(sums, reduced.tolist(), strict=True))
    losses, accuracies = (
        {f"{name}{suffix}": sums[f"{name}{kind}"] / max(1.0, sums[f"{name}_count"]) for name in objective.terms}
        for suffix, kind in (("", ""), ("_accuracy", "_correct"))
    )
    means = {**losses, "loss": sum(losses.values()), **accuracies}
    if not math.isfinite(means["loss"]):
        raise NonFiniteLossError(
            f"{description}: the held-out loss is {means['loss']}. Look for NaN in the weights, and at the data."
        )
    return means


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

    Args:
        pairs: training examples with the column `input_ids`.
        held_out: held-out examples, not shuffled.
        collator: masks them.
        vocab_size: number of word pieces.
        special_ids: tokens that are never predicted, such as `tokenizer.all_special_ids`; they take no probability.
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
