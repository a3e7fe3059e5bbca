"""Models on the Hub: their page, their pictures, publishing. Each is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..evaluation.results import Evaluation
    from .errors import InspectError, PublishError, RecordError
    from .evaluations import write_evaluations
    from .inspection import Inspection, inspect
    from .page import render_card
    from .publishing import Published, publish
    from .record import Facts, Record
    from .writing import write_page

_MODULES = {
    "errors": ("InspectError", "PublishError", "RecordError"),
    "evaluations": ("Evaluation", "write_evaluations"),
    "inspection": ("Inspection", "inspect"),
    "page": ("render_card",),
    "publishing": ("Published", "publish"),
    "record": ("Facts", "Record"),
    "writing": ("write_page",),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
