"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108).

There are no segments: ours is one, of zeros, and is added to the positions on the way back. In the pooler's place
stands `pre_classifier` with ReLU. Layers and config fields have names of their own.
"""

from __future__ import annotations

from typing import Any

from ..configuration_schubert import SchuBertConfig
from .family import POSITIONS, Family, Tensors

SEGMENTS = "embeddings.token_type_embeddings.weight"
FIELDS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}


class DistilBert(Family):
    classes = {"distilbert": "DistilBert"}
    prefix = "distilbert"
    names = {
        "transformer.layer.*.attention.q_lin": "encoder.layer.*.attention.self.query",
        "transformer.layer.*.attention.k_lin": "encoder.layer.*.attention.self.key",
        "transformer.layer.*.attention.v_lin": "encoder.layer.*.attention.self.value",
        "transformer.layer.*.attention.out_lin": "encoder.layer.*.attention.output.dense",
        "transformer.layer.*.sa_layer_norm": "encoder.layer.*.attention.output.LayerNorm",
        "transformer.layer.*.ffn.lin1": "encoder.layer.*.intermediate.dense",
        "transformer.layer.*.ffn.lin2": "encoder.layer.*.output.dense",
        "transformer.layer.*.output_layer_norm": "encoder.layer.*.output.LayerNorm",
    }
    heads = {
        "Model": {},
        "ForMaskedLM": {
            "vocab_transform": "cls.predictions.transform.dense",
            "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
            "vocab_projector": "cls.predictions.decoder",
        },
        "ForSequenceClassification": {"pre_classifier": "pooler.dense"},
        "ForMultipleChoice": {"pre_classifier": "pooler.dense"},
        "ForTokenClassification": {},
        "ForQuestionAnswering": {},
    }
    has_pooler = False

    def adapt_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        adapted = {FIELDS.get(name, name): value for name, value in fields.items()}
        del adapted["sinusoidal_pos_embds"], adapted["qa_dropout"]
        # The token classifier has the encoder's dropout.
        own, tokens = adapted.pop("seq_classif_dropout"), "SchuBertForTokenClassification"
        dropout = None if tokens in (fields["architectures"] or ()) else own
        return {**adapted, "classifier_dropout": dropout, "type_vocab_size": 1, "pooler_act": "relu"}

    def restore_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        names = {here: there for there, here in FIELDS.items()}
        restored = {names.get(name, name): value for name, value in fields.items()}
        dropout = restored.pop("classifier_dropout")
        return restored if dropout is None else {**restored, "seq_classif_dropout": dropout}

    def adapt_tensors(self, tensors: Tensors, config: Any) -> Tensors:
        words = tensors["bert.embeddings.word_embeddings.weight"]
        return {**tensors, f"bert.{SEGMENTS}": words.new_zeros(1, words.shape[1])}

    def restore_tensors(self, tensors: Tensors, config: SchuBertConfig) -> Tensors:
        segment = tensors.pop(SEGMENTS)[0]  # (h,), the same for every token
        return {**tensors, POSITIONS: tensors[POSITIONS] + segment}
