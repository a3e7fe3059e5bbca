"""Encoders that are no BERTs under other names: why not, and what to take instead."""

from __future__ import annotations

_ENGLISH = "`FacebookAI/roberta-base` or `google-bert/bert-base-uncased`"
_MANY = "`FacebookAI/xlm-roberta-base`"
_SENTENCES = "`BAAI/bge-base-en-v1.5` or, for many languages, `intfloat/multilingual-e5-base`"
_ROTARY = "it has rotary positions, which stand between query and key, and its layers normalise before each sublayer"

# Model type -> (its name, why it is none of ours, what is).
REFUSED: dict[str, tuple[str, str, str]] = {
    "mpnet": ("MPNet", "it adds a bias for relative positions to the attention scores", _SENTENCES),
    "deberta": ("DeBERTa", "its attention has projections of relative positions", _ENGLISH),
    "deberta-v2": ("DeBERTa", "its attention has projections of relative positions", f"{_ENGLISH} or {_MANY}"),
    "albert": ("ALBERT", "all its layers share one set of weights, so no layer can have its own widths", _ENGLISH),
    "longformer": ("Longformer", "its attention is a sliding window with projections for global tokens", _ENGLISH),
    "modernbert": ("ModernBERT", f"{_ROTARY}, and its filters are gated", _ENGLISH),
    "nomic_bert": ("nomic-bert", _ROTARY.partition(",")[0], _SENTENCES),
    "new": ("gte-v1.5", f"{_ROTARY.partition(',')[0]}, and its filters are gated", f"`thenlper/gte-base` or {_MANY}"),
    "eurobert": ("EuroBERT", f"{_ROTARY}, and its filters are gated", _MANY),
}


def refusal(model_type: str) -> str:
    """Why a model type in `REFUSED` is refused, and what to take instead."""
    name, why, instead = REFUSED[model_type]
    return f"{name} cannot become a SchuBERT: {why}. Take one that can, such as {instead}."
