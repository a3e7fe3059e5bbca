"""The yardstick of a masked language model: what a model that knows only how often each word piece occurs would lose."""

from __future__ import annotations

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from .objective import IGNORED
from .stream import Collator, ExampleStream


def unigram_loss(pairs: Dataset, held_out: ExampleStream, collator: Collator, *, vocab_size: int) -> float:
    """Cross-entropy, in nats per token, of the training text's unigram distribution on the held-out masked tokens.

    The masked tokens are those that `evaluate` scores with the same stream and collator. Counts are smoothed by one.

    Args:
        pairs: training examples with the column `input_ids`.
        vocab_size: number of word pieces.
    """
    counts = torch.ones(vocab_size, dtype=torch.float64)
    for batch in pairs.with_format("arrow").iter(batch_size=4096):
        ids = torch.from_numpy(batch["input_ids"].combine_chunks().flatten().to_numpy().copy())
        counts += torch.bincount(ids, minlength=vocab_size)
    log_probabilities = (counts / counts.sum()).log()
    total, number = 0.0, 0
    loader = DataLoader(held_out, batch_size=64, sampler=range(len(held_out.examples)), collate_fn=collator)
    for batch in loader:
        labels = batch["labels"][batch["labels"] != IGNORED]
        total -= float(log_probabilities[labels].sum())
        number += len(labels)
    return total / max(1, number)
