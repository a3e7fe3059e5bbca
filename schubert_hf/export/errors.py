"""The error of bad input to `schubert export`."""

from __future__ import annotations

from ..errors import SchuBertError


class ExportError(SchuBertError):
    """A model that cannot be exported as asked, or whose export does not compute what PyTorch computes."""
