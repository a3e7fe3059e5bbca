"""RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa and CamemBERT.

Positions: a token's position is `pad_token_id` plus its number among the tokens that are no padding, from 1. So the
first `pad_token_id + 1` rows of the table belong to no token; they are dropped, and padding takes no position.
Heads: the classification head is a dense layer with tanh, which is our pooler, and a classifier.
"""

from __future__ import annotations

from typing import Any

import torch

from ..configuration_schubert import SchuBertConfig
from .family import POSITIONS, Family, Tensors


class Roberta(Family):
    classes = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
    prefix = "roberta"
    heads = {
        "Model": {},
        "ForMaskedLM": {
            "lm_head.dense": "cls.predictions.transform.dense",
            "lm_head.layer_norm": "cls.predictions.transform.LayerNorm",
            "lm_head.decoder": "cls.predictions.decoder",
            "lm_head": "cls.predictions",  # its bias
        },
        "ForSequenceClassification": {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"},
        "ForMultipleChoice": {},
        "ForTokenClassification": {},
        "ForQuestionAnswering": {},
    }
    transform_act = "gelu"

    def adapt_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        positions = fields["max_position_embeddings"] - _unused(fields["pad_token_id"])
        return {**fields, "max_position_embeddings": positions, "padding_takes_positions": False}

    def restore_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        positions = fields["max_position_embeddings"] + _unused(fields["pad_token_id"])
        return {**fields, "max_position_embeddings": positions}

    def adapt_tensors(self, tensors: Tensors, config: Any) -> Tensors:
        table = tensors[f"bert.{POSITIONS}"]
        return {**tensors, f"bert.{POSITIONS}": table[_unused(config.pad_token_id) :].clone()}

    def restore_tensors(self, tensors: Tensors, config: SchuBertConfig) -> Tensors:
        table = tensors[POSITIONS]
        unused = table.new_zeros(_unused(config.pad_token_id), table.shape[1])
        return {**tensors, POSITIONS: torch.cat([unused, table])}


def _unused(pad_token_id: int | None) -> int:
    return (pad_token_id or 0) + 1
