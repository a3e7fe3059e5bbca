"""schubert_hf: BERT with a width of its own in every layer, and the pruner that finds the widths.

Importing it registers "schubert" with every Auto class of transformers. The pruner is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .auto import auto_map, register
from .configuration_schubert import SchuBertConfig, SchuBertConfigError
from .conversion import convert_bert, load, to_bert
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

if TYPE_CHECKING:
    from .pruning.config import PruningConfig
    from .pruning.plan import PruningPlan
    from .pruning.pruner import SchuBertPruner
    from .pruning.surgery import compact

__version__ = "0.1.0"

_LAZY = {
    "PruningConfig": "schubert_hf.pruning.config",
    "PruningPlan": "schubert_hf.pruning.plan",
    "SchuBertPruner": "schubert_hf.pruning.pruner",
    "compact": "schubert_hf.pruning.surgery",
}

__all__ = [
    "PruningConfig",
    "PruningPlan",
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
    "auto_map",
    "compact",
    "convert_bert",
    "load",
    "to_bert",
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
