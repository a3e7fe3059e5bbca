"""Errors that a user's input can cause: each message says what was given, what is allowed, and the way out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from .configuration_schubert import SchuBertConfigError
from .modeling_schubert import SchuBertLoadError


class SchuBertError(ValueError):
    """The base of every error that bad input can cause; anything else that is raised is a bug."""


# The two shipped files may import nothing of ours, so their errors stand beside the base.
USER_ERRORS = (SchuBertError, SchuBertConfigError, SchuBertLoadError)


class EvaluationDataError(SchuBertError):
    """Labelled data that cannot be used: missing, empty, or with other columns or labels than its task has."""


class MetricError(SchuBertError):
    """A metric that does not exist, or predictions and references that it cannot compare."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors of bad input into one line on stderr and exit code 1; the other processes of a run end silently."""
    try:
        yield
    except USER_ERRORS as error:
        if int(os.environ.get("RANK", "0")) == 0:
            raise SystemExit(f"error: {error}") from None
        raise SystemExit(1) from None
    except torch.OutOfMemoryError as error:
        why = ". ".join(" ".join(str(error).split()).split(". ")[:2]).removesuffix(".")
        raise SystemExit(
            f"error: out of memory: {why}. Give smaller batches, shorter texts, or another device."
        ) from None
