"""The yardstick of a masked language model: the loss of one that knows only how often each word piece occurs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from ..data.stream import IGNORED, Collator, ExampleStream, for_stream


def unigram_loss(
    pairs: Dataset,
    held_out: ExampleStream,
    collator: Collator,
    *,
    vocab_size: int,
    special_ids: Sequence[int] = (),
) -> float:
    """Cross-entropy, in nats per token, of the training text's unigram distribution on the held-out masked tokens.

    The masked tokens are those that `evaluate` scores with the same stream and collator. Counts are smoothed by one.

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
