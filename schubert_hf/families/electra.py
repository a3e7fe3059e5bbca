"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): generators and discriminators.

There is no pooler: the classification heads begin with a dense layer and gelu, which is our pooler. The
discriminator's own head, which tells replaced tokens, is left out. Where the embeddings are narrower than the layers,
as in the small ones, `embeddings_project` leads from the ones to the others, as it does here.
"""

from __future__ import annotations

from typing import Any

from ..configuration_schubert import SchuBertConfigError
from .family import Family

SUMMARY = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}
OTHERS = ("summary_last_dropout", *SUMMARY)


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
    projects = True

    def adapt_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        for name, value in SUMMARY.items():
            if fields[name] != value:
                raise SchuBertConfigError(f"`{name}` is {fields[name]!r}, allowed is {value!r}.")
        kept = {name: value for name, value in fields.items() if name not in OTHERS}
        return {**kept, "pooler_act": "gelu"}

    def restore_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"embedding_size": fields["hidden_size"], **fields}
