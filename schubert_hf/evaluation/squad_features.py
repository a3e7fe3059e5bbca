"""Questions to windows: question and context as word pieces, a long context in windows that overlap.

Devlin et al. 2019, section 4.2, with the windows of their published code.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..errors import EvaluationDataError
from .encoding import PADDED

SPECIAL = 3  # [CLS] question [SEP] context [SEP]
NOWHERE = [-1, -1]


def make_windows(
    questions: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 384,
    stride: int = 128,
    max_question_length: int = 64,
) -> Dataset:
    """All windows of all questions.

    Args:
        questions: see `squad_data.load_squad`.
        tokenizer: a BERT's, one that knows offsets.
        max_length: word pieces per window, special tokens included.
        stride: word pieces by which neighbouring windows overlap.
        max_question_length: word pieces; longer questions are cut.

    Returns:
        What the tokenizer gives, without padding; `start_positions` and `end_positions`, the tokens of the first
        reference, those of [CLS] where the window does not hold it whole; `question`, the number of its row; and
        `offsets`, the characters of each token in the context, `[-1, -1]` for tokens that are not of it.

    Raises:
        EvaluationDataError: the tokenizer knows no offsets, or a question leaves too little room in a window.
    """
    if not tokenizer.is_fast:
        raise EvaluationDataError(
            f"`{type(tokenizer).__name__}` knows no offsets, without which answers cannot be found again. "
            "Give a fast tokenizer: a checkpoint with a tokenizer.json or a vocab.txt."
        )
    if min(stride, max_question_length) < 1 or max_length < max_question_length + SPECIAL + stride + 1:
        raise EvaluationDataError(
            f"`max_length` is {max_length}, `stride` {stride}, `max_question_length` {max_question_length}; a window "
            f"needs at least {max_question_length + SPECIAL + stride + 1} word pieces to move on. Raise the first, or "
            "lower the others; these are at least 1."
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
            sides = found.sequence_ids(window)
            spans = [
                list(span) if side == 1 else NOWHERE
                for span, side in zip(found["offset_mapping"][window], sides, strict=True)
            ]
            offsets.append(spans)
            places.append(_answer_tokens(spans, rows["answers"][row]))
        return {
            **{name: found[name] for name in PADDED if name in found},
            "start_positions": [start for start, _ in places],
            "end_positions": [end for _, end in places],
            "question": [numbers[row] for row in found["overflow_to_sample_mapping"]],
            "offsets": offsets,
        }

    return questions.map(
        to_windows,
        batched=True,
        batch_size=100,
        with_indices=True,
        remove_columns=questions.column_names,
        keep_in_memory=True,
        desc="Windows",
    )


def _shortened(questions: list[str], tokenizer: PreTrainedTokenizerBase, most: int) -> list[str]:
    """Questions of at most so many word pieces, without the white space at their beginning."""
    questions = [question.lstrip() for question in questions]
    cut = tokenizer(
        questions,
        add_special_tokens=False,
        truncation=True,
        max_length=most,
        return_offsets_mapping=True,
        padding=False,
    )
    return [
        question[: spans[-1][1]] if spans else question
        for question, spans in zip(questions, cut["offset_mapping"], strict=True)
    ]


def _answer_tokens(spans: list[list[int]], answers: dict[str, list[Any]]) -> tuple[int, int]:
    """The first and the last token of the first reference; (0, 0), [CLS], where they are not all in the window."""
    if not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    end = begin + len(answers["text"][0])
    inside = [number for number, span in enumerate(spans) if span != NOWHERE and span[0] < end and span[1] > begin]
    if not inside or spans[inside[0]][0] > begin or spans[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]
