"""Fine-tuning and evaluation on GLUE, SQuAD and text."""

from ..errors import EvaluationDataError, MetricError
from .finetuning import Finetuning, FinetuningResult
from .finetuning_config import FinetuningConfig
from .glue import open_glue
from .language_model import LanguageModelResult, evaluate_model
from .metrics import load_metric
from .results import Evaluation, Results, ResultsError
from .squad import open_squad

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
