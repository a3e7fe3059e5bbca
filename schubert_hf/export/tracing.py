"""The program of a subject, by `transformers.exporters`; and how to keep what it prints off the screen."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from ..run.progress import quiet
from .batches import traced_batch
from .subject import Subject


def trace(exporter: Any, config: Any, subject: Subject, *, largest_batch: int | None = None) -> Any:
    """The exporter's program, in float32; batch, choices and length are dynamic."""
    batch = traced_batch(subject)
    axes = {0: torch.export.Dim("batch", max=largest_batch), 1: torch.export.Dim("sequence", max=subject.longest)}
    if subject.head == "MultipleChoice":
        axes = {0: axes[0], 1: torch.export.Dim("choices", max=largest_batch), 2: axes[1]}
    shapes = dict.fromkeys(batch, axes)
    with hushed():
        return exporter().export(subject.function, dict(batch), config(dynamic=True, dynamic_shapes=shapes)).program


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keeps what exporters and quantizers print, log and warn of off the screen: none of it a user can act on."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with quiet(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
