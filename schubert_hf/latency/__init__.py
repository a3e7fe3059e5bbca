"""Milliseconds of a shape on this machine: targets such as 12ms, and times for a model card."""

from .cost import LatencyCost
from .timing import LatencyError, measure

__all__ = ["LatencyCost", "LatencyError", "measure"]
