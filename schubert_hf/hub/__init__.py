"""Models on the Hub: their page, their pictures, publishing. Each is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .card import render_card
    from .errors import InspectError, PublishError, RecordError
    from .evaluations import Evaluation, write_evaluations
    from .facts import Facts
    from .inspection import Inspection
    from .looking import inspect
    from .publishing import Published, publish
    from .staging import write_page

_MODULES = {
    "card": ("render_card",),
    "errors": ("InspectError", "PublishError", "RecordError"),
    "evaluations": ("Evaluation", "write_evaluations"),
    "facts": ("Facts",),
    "inspection": ("Inspection",),
    "looking": ("inspect",),
    "publishing": ("Published", "publish"),
    "staging": ("write_page",),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Evaluation",
    "Facts",
    "InspectError",
    "Inspection",
    "PublishError",
    "Published",
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
