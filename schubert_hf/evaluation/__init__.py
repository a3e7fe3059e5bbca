"""Fine-tuning and evaluation on GLUE, SQuAD and text. Each is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import EvaluationDataError, MetricError

if TYPE_CHECKING:
    from .finetuning import Finetuning, FinetuningResult
    from .finetuning_config import FinetuningConfig
    from .glue import open_glue
    from .language_model import LanguageModelResult, evaluate_model
    from .metrics import load_metric
    from .results import Evaluation, Results, ResultsError
    from .squad import open_squad

_MODULES = {
    "finetuning": ("Finetuning", "FinetuningResult"),
    "finetuning_config": ("FinetuningConfig",),
    "glue": ("open_glue",),
    "language_model": ("LanguageModelResult", "evaluate_model"),
    "metrics": ("load_metric",),
    "results": ("Evaluation", "Results", "ResultsError"),
    "squad": ("open_squad",),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Evaluation",
    "EvaluationDataError",
    "Finetuning",
    "FinetuningConfig",
    "FinetuningResult",
    "LanguageModelResult",
    "MetricError",
    "Results",
    "ResultsError",
    "evaluate_model",
    "load_metric",
    "open_glue",
    "open_squad",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
