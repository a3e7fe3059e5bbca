"""schubert_hf: BERT with a width of its own in every layer, and the pruner that finds the widths.

`schubert_hf.prune(model, target, text=...)` prunes a checkpoint of BERT or a relative of it. Importing the package
registers "schubert" with every Auto class of transformers. The pruner is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .auto import auto_map, register
from .configuration_schubert import SchuBertConfig, SchuBertConfigError
from .conversion import convert_bert, load, to_bert
from .families import register_families
from .modeling_schubert import (
    SchuBertForMaskedLM,
    SchuBertForMultipleChoice,
    SchuBertForNextSentencePrediction,
    SchuBertForPreTraining,
    SchuBertForQuestionAnswering,
    SchuBertForSequenceClassification,
    SchuBertForTokenClassification,
    SchuBertLoadError,
    SchuBertModel,
    SchuBertPreTrainedModel,
)
from .presets import register_presets

if TYPE_CHECKING:
    from .data.pairs import make_pairs
    from .data.spans import make_spans, make_text_pairs
    from .data.text import load_documents
    from .evaluation.language_model import evaluate_model
    from .evaluation.objectives import ClassificationObjective, QuestionAnsweringObjective, RegressionObjective
    from .front.prune import prune
    from .front.trim import TrimResult, trim
    from .pruning.config import PruningConfig
    from .pruning.plan import PruningPlan
    from .pruning.pruner import SchuBertPruner
    from .pruning.result import PruningResult
    from .pruning.surgery import compact
    from .training.objective import PretrainingObjective
    from .training.outputs import Outputs

__version__ = "0.2.0"

_LAZY = {
    "ClassificationObjective": "schubert_hf.evaluation.objectives",
    "Outputs": "schubert_hf.training.outputs",
    "PretrainingObjective": "schubert_hf.training.objective",
    "PruningConfig": "schubert_hf.pruning.config",
    "PruningPlan": "schubert_hf.pruning.plan",
    "PruningResult": "schubert_hf.pruning.result",
    "QuestionAnsweringObjective": "schubert_hf.evaluation.objectives",
    "RegressionObjective": "schubert_hf.evaluation.objectives",
    "SchuBertPruner": "schubert_hf.pruning.pruner",
    "TrimResult": "schubert_hf.front.trim",
    "compact": "schubert_hf.pruning.surgery",
    "evaluate_model": "schubert_hf.evaluation.language_model",
    "load_documents": "schubert_hf.data.text",
    "make_pairs": "schubert_hf.data.pairs",
    "make_spans": "schubert_hf.data.spans",
    "make_text_pairs": "schubert_hf.data.spans",
    "prune": "schubert_hf.front.prune",
    "trim": "schubert_hf.front.trim",
}

__all__ = [
    "ClassificationObjective",
    "Outputs",
    "PretrainingObjective",
    "PruningConfig",
    "PruningPlan",
    "PruningResult",
    "QuestionAnsweringObjective",
    "RegressionObjective",
    "SchuBertConfig",
    "SchuBertConfigError",
    "SchuBertForMaskedLM",
    "SchuBertForMultipleChoice",
    "SchuBertForNextSentencePrediction",
    "SchuBertForPreTraining",
    "SchuBertForQuestionAnswering",
    "SchuBertForSequenceClassification",
    "SchuBertForTokenClassification",
    "SchuBertLoadError",
    "SchuBertModel",
    "SchuBertPreTrainedModel",
    "SchuBertPruner",
    "TrimResult",
    "auto_map",
    "compact",
    "convert_bert",
    "evaluate_model",
    "load",
    "load_documents",
    "make_pairs",
    "make_spans",
    "make_text_pairs",
    "prune",
    "to_bert",
    "trim",
]


def __getattr__(name: str) -> Any:
    if name == "hub":
        return import_module("schubert_hf.hub")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


register()
register_families()
register_presets()
