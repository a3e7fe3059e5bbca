"""Text to word pieces for the task heads, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

LABELS = ("labels", "start_positions", "end_positions")
PADDED = ("input_ids", "attention_mask", "token_type_ids")


def encode(
    examples: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> Dataset:
    """The examples as word pieces, without padding; of two texts the longer one is cut first.

    Args:
        examples: text in `columns` and a number in `label`.
        columns: one column or two.
        tokenizer: a BERT's. Truncation and padding that its file has switched on do not matter.
        max_length: word pieces per example, special tokens included.

    Returns:
        What the tokenizer gives, and `labels`.
    """

    def to_ids(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = [rows[column] for column in columns]
        found = tokenizer(*texts, truncation=True, max_length=max_length, padding=False)
        return {**{name: found[name] for name in PADDED if name in found}, "labels": rows["label"]}

    return examples.map(
        to_ids, batched=True, remove_columns=examples.column_names, keep_in_memory=True, desc="Tokenizing"
    )


class TaskCollator:
    """Pads a batch to its longest example; `labels` and positions become tensors, other columns are left out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        padding = {"input_ids": self.tokenizer.pad_token_id or 0}
        batch = {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.as_tensor(example[name]) for example in examples],
                batch_first=True,
                padding_value=padding.get(name, 0),
            ).long()
            for name in PADDED
            if name in examples[0]
        }
        return batch | {
            name: torch.tensor([example[name] for example in examples]) for name in LABELS if name in examples[0]
        }
