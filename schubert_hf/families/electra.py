"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): generators and discriminators.

There is no pooler: the classification heads begin with a dense layer and gelu, which is our pooler. The
discriminator's own head, which tells replaced tokens, is left out.
"""

from __future__ import annotations

from typing import Any

from ..configuration_schubert import SchuBertConfigError
from .family import Family

SUMMARY = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}
OTHERS = ("summary_last_dropout", "embedding_size", *SUMMARY)


class Electra(Family):
    classes = {"electra": "Electra"}
    prefix = "electra"
    heads = {
        "Model": {},
        "ForMaskedLM": {
            "generator_predictions.dense": "cls.predictions.transform.dense",
            "generator_predictions.LayerNorm": "cls.predictions.transform.LayerNorm",
            "generator_lm_head": "cls.predictions.decoder",
        },
        "ForSequenceClassification": {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"},
        "ForMultipleChoice": {"sequence_summary.summary": "pooler.dense"},
        "ForTokenClassification": {},
        "ForQuestionAnswering": {},
    }
    without_head = ("ForPreTraining",)
    left_out = ("discriminator_predictions",)
    transform_act = "gelu"
    has_pooler = False

    def adapt_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields["embedding_size"] != fields["hidden_size"]:
            raise SchuBertConfigError(
                f"`embedding_size` is {fields['embedding_size']}, allowed is `hidden_size`, {fields['hidden_size']}: "
                "embeddings of another width cannot be converted. Take a base or large ELECTRA."
            )
        for name, value in SUMMARY.items():
            if fields[name] != value:
                raise SchuBertConfigError(f"`{name}` is {fields[name]!r}, allowed is {value!r}.")
        kept = {name: value for name, value in fields.items() if name not in OTHERS}
        return {**kept, "pooler_act": "gelu"}

    def restore_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "embedding_size": fields["hidden_size"]}
