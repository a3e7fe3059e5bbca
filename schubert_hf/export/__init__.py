"""A checkpoint in the formats that servers and browsers run, each compared with PyTorch before it is kept."""

from .errors import ExportError
from .exporting import Exported, export
from .formats import FORMATS

__all__ = ["FORMATS", "ExportError", "Exported", "export"]
