"""Models on the Hub: their page, its pictures and tables, results, publishing, inspection."""

from ..evaluation.results import Evaluation
from .errors import InspectError, PublishError, RecordError
from .evaluations import write_evaluations
from .inspection import Inspection, inspect
from .page import render_card
from .publishing import Published, publish
from .record import Facts, Record
from .writing import write_page

__all__ = [
    "Evaluation",
    "Facts",
    "InspectError",
    "Inspection",
    "PublishError",
    "Published",
    "Record",
    "RecordError",
    "inspect",
    "publish",
    "render_card",
    "write_evaluations",
    "write_page",
]
