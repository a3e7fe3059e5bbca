"""What a user's input can cause."""

from ..errors import SchuBertError


class BenchError(SchuBertError):
    """A checkpoint, a backend or a workload that cannot be timed."""
