"""The error of bad input to `schubert bench`."""

from ..errors import SchuBertError


class BenchError(SchuBertError):
    """A checkpoint, a backend or a workload that cannot be timed."""
