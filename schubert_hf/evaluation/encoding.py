"""Text to word pieces for the task heads: examples of GLUE whole, contexts of SQuAD in windows that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from ..errors import EvaluationDataError
from ..run.progress import map_rows

LABELS = ("labels", "start_positions", "end_positions")
PADDED = ("input_ids", "attention_mask", "token_type_ids")
NOWHERE = [-1, -1]


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

    return map_rows(
        examples, to_ids, "Tokenizing", batched=True, remove_columns=examples.column_names, keep_in_memory=True
    )


def make_windows(
    questions: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 384,
    stride: int = 128,
    max_question_length: int = 64,
) -> Dataset:
    """All windows of all questions (Devlin et al. 2019, section 4.2, with the windows of their published code).

    Args:
        questions: see `squad_data.load_squad`.
        tokenizer: a BERT's, one that knows offsets.
        max_length: word pieces per window, special tokens included.
        stride: word pieces by which neighbouring windows overlap.
        max_question_length: word pieces; longer questions are cut.

    Returns:
        What the tokenizer gives, without padding; `start_positions` and `end_positions`, the tokens of the first
        reference, those of [CLS] if the window does not hold it whole; `question`, the number of its row; and
        `offsets`, the characters of each token in the context, `[-1, -1]` for all other tokens.

    Raises:
        EvaluationDataError: the tokenizer knows no offsets, or a question leaves too little room in a window.
    """
    if not tokenizer.is_fast:
        raise EvaluationDataError(
            f"`{type(tokenizer).__name__}` knows no offsets, which are needed to locate answers. "
            "Give a fast tokenizer: a checkpoint with a tokenizer.json or a vocab.txt."
        )
    special = tokenizer.num_special_tokens_to_add(pair=True)  # of `[CLS] question [SEP] context [SEP]`
    least = max_question_length + special + stride + 1
    if min(stride, max_question_length) < 1 or max_length < least:
        raise EvaluationDataError(
            f"`max_length` is {max_length}, `stride` {stride}, `max_question_length` {max_question_length}; a window "
            f"needs at least {least} word pieces to advance. Raise the first, or lower the others; these are at "
            "least 1."
        )

    def to_windows(rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        found = tokenizer(
            _shortened(rows["question"], tokenizer, max_question_length),
            rows["context"],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=False,
        )
        places, offsets = [], []
        for window, row in enumerate(found["overflow_to_sample_mapping"]):
            pairs = zip(found["offset_mapping"][window], found.sequence_ids(window), strict=True)
            offsets.append([list(span) if side == 1 else NOWHERE for span, side in pairs])
            places.append(_answer_tokens(found, window, rows["answers"][row]))
        return {
            **{name: found[name] for name in PADDED if name in found},
            "start_positions": [start for start, _ in places],
            "end_positions": [end for _, end in places],
            "question": [numbers[row] for row in found["overflow_to_sample_mapping"]],
            "offsets": offsets,
        }

    return map_rows(
        questions,
        to_windows,
        "Windows",
        batched=True,
        batch_size=100,
        with_indices=True,
        remove_columns=questions.column_names,
        keep_in_memory=True,
    )


def _shortened(questions: list[str], tokenizer: PreTrainedTokenizerBase, most: int) -> list[str]:
    """Questions of at most `most` word pieces, without leading white space."""
    questions = [question.lstrip() for question in questions]
    options = {"add_special_tokens": False, "truncation": True, "padding": False, "return_offsets_mapping": True}
    cut = tokenizer(questions, max_length=most, **options)["offset_mapping"]
    return [text[: spans[-1][1]] if spans else text for text, spans in zip(questions, cut, strict=True)]


def _answer_tokens(found: BatchEncoding, window: int, answers: dict[str, list[Any]]) -> tuple[int, int]:
    """The first and the last token of the first reference; (0, 0), [CLS], if they are not both in the window."""
    if not answers["text"]:
        return 0, 0
    begin, length = answers["answer_start"][0], max(1, len(answers["text"][0]))
    first, last = (found.char_to_token(window, place, 1) for place in (begin, begin + length - 1))
    return (0, 0) if first is None or last is None else (first, last)


class TaskCollator:
    """Pads a batch to its longest example; `labels` and positions become tensors, other columns are left out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.padding = {"input_ids": tokenizer.pad_token_id or 0}

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.as_tensor(example[name]) for example in examples],
                batch_first=True,
                padding_value=self.padding.get(name, 0),
            ).long()
            for name in PADDED
            if name in examples[0]
        }
        return batch | {
            name: torch.tensor([example[name] for example in examples]) for name in LABELS if name in examples[0]
        }
