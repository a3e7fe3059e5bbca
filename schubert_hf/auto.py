"""One table, head <-> Auto class: registration and the `auto_map` of published checkpoints both read it."""

import contextlib
import importlib.util

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertTokenizer,
    BertTokenizerFast,
)

from .configuration_schubert import SchuBertConfig
from .modeling_schubert import (
    SchuBertForMaskedLM,
    SchuBertForMultipleChoice,
    SchuBertForNextSentencePrediction,
    SchuBertForPreTraining,
    SchuBertForQuestionAnswering,
    SchuBertForSequenceClassification,
    SchuBertForTokenClassification,
    SchuBertModel,
    SchuBertPreTrainedModel,
)

MODELS: dict[type, type[SchuBertPreTrainedModel]] = {
    AutoModel: SchuBertModel,
    AutoModelForPreTraining: SchuBertForPreTraining,
    AutoModelForMaskedLM: SchuBertForMaskedLM,
    AutoModelForNextSentencePrediction: SchuBertForNextSentencePrediction,
    AutoModelForSequenceClassification: SchuBertForSequenceClassification,
    AutoModelForMultipleChoice: SchuBertForMultipleChoice,
    AutoModelForTokenClassification: SchuBertForTokenClassification,
    AutoModelForQuestionAnswering: SchuBertForQuestionAnswering,
}


def register() -> None:
    """Make AutoConfig, AutoTokenizer, the Auto models, pipelines and peft know SchuBERT. May be called again."""
    AutoConfig.register(SchuBertConfig.model_type, SchuBertConfig, exist_ok=True)
    AutoTokenizer.register(
        SchuBertConfig, slow_tokenizer_class=BertTokenizer, fast_tokenizer_class=BertTokenizerFast, exist_ok=True
    )
    for auto_class, model_class in MODELS.items():
        auto_class.register(SchuBertConfig, model_class, exist_ok=True)  # type: ignore[attr-defined]
    _register_with_peft()


def _register_with_peft() -> None:
    """Give peft BERT's target modules for SchuBERT, which names its modules alike: a LoRA then needs no
    `target_modules`. peft looks them up by model type in tables of its own and has no other way to be told.
    """
    if importlib.util.find_spec("peft") is None:
        return
    with contextlib.suppress(ImportError):  # a peft of another age than transformers: an error where it is used
        from peft.utils import constants

        for name, table in vars(constants).items():
            if name.startswith("TRANSFORMERS_MODELS_TO_") and isinstance(table, dict) and "bert" in table:
                table.setdefault(SchuBertConfig.model_type, table["bert"])


def auto_map() -> dict[str, str]:
    """The `auto_map` for the config.json of a published checkpoint: every Auto class, whatever class was saved.

    `save_pretrained` on its own writes the entry of the saved class alone, so that e.g.
    `AutoModelForSequenceClassification` could not open a masked-LM checkpoint with `trust_remote_code=True`.
    """
    models = {auto.__name__: f"modeling_schubert.{model.__name__}" for auto, model in MODELS.items()}
    return {"AutoConfig": f"configuration_schubert.{SchuBertConfig.__name__}", **models}
