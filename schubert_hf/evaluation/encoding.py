"""Text -> word pieces for the task heads, and batches of them; padding comes with the batch, and only as needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from ..training.stream import Collator
from .glue_data import LABEL


def encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[str],
    *,
    max_length: int,
    segments: bool = True,
) -> Dataset:
    """Word pieces of one column of text, or of a pair of columns.

    What a tokenizer's own file says of padding and truncation does not count.

    Args:
        dataset: has `columns`, and perhaps `label`.
        tokenizer: a BERT's.
        columns: one or two.
        max_length: word pieces per example, special tokens included; of a pair the longer text is cut first.
        segments: give `token_type_ids`, where the tokenizer has them.

    Returns:
        `input_ids`, perhaps `token_type_ids`, both without padding, and `label` if it was there.
    """
    wanted = ("input_ids", "token_type_ids") if segments else ("input_ids",)

    def encoded(rows: dict[str, list[str]]) -> dict[str, Any]:
        found = tokenizer(
            *(rows[name] for name in columns),
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
        )
        return {name: found[name] for name in wanted if name in found}

    dropped = [name for name in dataset.column_names if name != LABEL]
    made: Dataset = dataset.map(encoded, batched=True, remove_columns=dropped, desc="word pieces")
    return made


def make_collator(tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Pads to the longest example of a batch.

    Returns:
        A function from examples to `input_ids`, `attention_mask`, perhaps `token_type_ids`, of shape (batch, seq), and
        `labels` of shape (batch,) where the examples have a `label`.
    """
    pad = DataCollatorWithPadding(tokenizer, padding="longest")

    def collate(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = dict(pad(examples))
        return {name: torch.as_tensor(value) for name, value in batch.items()}

    return collate
