"""Batches of unlabelled examples: padded, nothing masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .stream import TokenizerError

COLUMNS = ("input_ids", "token_type_ids")


class PaddingCollator:
    """Pads `input_ids` and `token_type_ids`, and adds an `attention_mask`; other columns are left out.

    Both are lists of word pieces, or lists of as many such lists as there are choices.

    Args:
        tokenizer: its padding token is used.

    Raises:
        TokenizerError: it has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.pad_token_id is None:
            raise TokenizerError(
                f"The tokenizer `{tokenizer.name_or_path or type(tokenizer).__name__}` has no padding token. Add one "
                "with `tokenizer.add_special_tokens`."
            )
        self.tokenizer = tokenizer

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Examples to tensors of shape (batch, seq), or (batch, choices, seq)."""
        names = [name for name in COLUMNS if name in examples[0]]
        rows = {name: [_as_rows(example[name]) for example in examples] for name in names}
        rows["attention_mask"] = [[[1] * len(row) for row in choices] for choices in rows["input_ids"]]
        longest = max(len(row) for choices in rows["input_ids"] for row in choices)
        batch = {}
        for name, values in rows.items():
            padding = self.tokenizer.pad_token_id if name == "input_ids" else 0
            padded = torch.tensor([[[*row, *[padding] * (longest - len(row))] for row in one] for one in values])
            batch[name] = padded if _has_choices(examples[0]["input_ids"]) else padded.squeeze(1)
        return batch


def _has_choices(ids: Sequence[Any]) -> bool:
    return isinstance(ids[0], Sequence) or getattr(ids[0], "ndim", 0) > 0


def _as_rows(ids: Sequence[Any]) -> list[list[int]]:
    return [list(row) for row in ids] if _has_choices(ids) else [list(ids)]
