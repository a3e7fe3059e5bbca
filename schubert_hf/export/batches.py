"""Batches that an export is traced, compared, calibrated and judged on."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from ..data.padding import PaddingCollator
from ..data.stream import TokenizerError
from ..data.text import load_documents
from ..encoders.examples import unlabelled_examples
from .errors import ExportError
from .subject import Subject

Batch = dict[str, Tensor]

NUMBER = 20
TRACED = (2, 7)
TOKENS = 1024  # per batch, at most: outputs of a masked-LM head are large
TEXTS = 256  # half of them calibrate, half judge
TEXTS_PER_BATCH = 8
CHOICES = 3


def traced_batch(subject: Subject) -> Batch:
    """The batch that a graph is recorded with: no size of it is 1, which would be taken for a constant."""
    batch, length = TRACED
    return random_batch(subject, batch, min(length, subject.longest), torch.Generator().manual_seed(0))


def other_batches(subject: Subject) -> list[Batch]:
    """Batches of random tokens in other shapes: padded ones, a single token, and the longest that fits."""
    shapes, generator = random.Random(0), torch.Generator().manual_seed(1)
    longest = min(subject.longest, TOKENS)
    sizes = [(1, 1), (1, longest), (3, 1)]
    while len(sizes) < NUMBER:
        length = shapes.randint(1, longest)
        size = min(shapes.randint(1, 9), max(1, TOKENS // length)), length
        if size != TRACED:
            sizes.append(size)
    return [random_batch(subject, *size, generator) for size in sizes]


def random_batch(subject: Subject, batch: int, length: int, generator: torch.Generator) -> Batch:
    """Random tokens, (batch, length) or (batch, choices, length); all rows but the first end in padding."""
    shape = (batch, CHOICES, length) if subject.head == "MultipleChoice" else (batch, length)
    config = subject.config
    real = torch.randint(1, length + 1, (*shape[:-1], 1), generator=generator)
    real[0] = length
    mask = (torch.arange(length) < real).long()
    ids = torch.randint(config.vocab_size, shape, generator=generator)
    made = {
        "input_ids": torch.where(mask.bool(), ids, config.pad_token_id or 0),
        "attention_mask": mask,
        "token_type_ids": torch.randint(config.type_vocab_size, shape, generator=generator),
    }
    return {name: made[name] for name in subject.inputs}


def text_batches(subject: Subject, text: Any) -> tuple[list[Batch], list[Batch]]:
    """Batches of text: some to calibrate on, others to judge by; no text is in both.

    Args:
        text: as `load_documents` takes it.

    Raises:
        ExportError: the folder holds no tokenizer, or the text makes too few examples.
        SchuBertError: the text cannot be read.
    """
    if subject.tokenizer is None:
        raise ExportError(
            f"`{subject.folder}` holds no tokenizer, but int8 needs one for `--text`. Save it there: "
            "`tokenizer.save_pretrained(folder)`."
        )
    examples = unlabelled_examples(
        str(subject.folder), subject.function.model, subject.tokenizer, load_documents(text), TEXTS
    )
    if len(examples) < 6:  # of two examples there is one similarity, which has no rank
        raise ExportError(f"`text` makes {len(examples)} examples; int8 needs 6 or more. Give more text.")
    try:
        collate = PaddingCollator(subject.tokenizer)
    except TokenizerError as error:
        raise ExportError(str(error)) from error
    halves = [[examples[number] for number in range(start, len(examples), 2)] for start in (0, 1)]
    calibrating, judging = (
        [_named(subject, collate(half[start : start + TEXTS_PER_BATCH])) for start in range(0, len(half), 8)]
        for half in halves
    )
    return calibrating, judging


def _named(subject: Subject, batch: Batch) -> Batch:
    return {name: batch[name] for name in subject.inputs}
