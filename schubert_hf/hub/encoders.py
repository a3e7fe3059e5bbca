"""What a page says of a sentence encoder or cross-encoder: the Hub's names for it, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..configuration_schubert import SchuBertConfig
from ..encoders.kinds import CROSS, SENTENCE, TRANSFORMER, kind_of, read
from .tables import Table

_TAGS = {
    "sentence-similarity": ["sentence-transformers", "sentence-similarity", "feature-extraction"],
    "text-ranking": ["sentence-transformers", "cross-encoder", "reranker"],
    "text-classification": ["sentence-transformers", "cross-encoder"],
}
FIGURES = {
    "cosine": "mean cosine to the dense embedding",
    "rank_correlation": "rank correlation of all pairwise similarities",
    "neighbours": "nearest neighbours that stay, of ten",
}


def facts_of_files(folder: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    """Kind, labels and maximal length of what sentence-transformers saved; None for anything else.

    An encoder that was fine-tuned has these files, but not the record of the run that pruned it. `content`: of its
    config.json.
    """
    if (kind := kind_of(str(folder))) not in (SENTENCE, CROSS):
        return None
    config = SchuBertConfig.from_dict(dict(content))
    settings, tokenizer = (read(str(folder), name) or {} for name in (TRANSFORMER, "tokenizer_config.json"))
    given = settings.get("max_seq_length") or tokenizer.get("model_max_length") or config.max_position_embeddings
    return {"kind": kind, "labels": config.num_labels, "max_length": min(given, config.max_position_embeddings)}


def pipeline_tag(encoder: dict[str, Any]) -> str:
    """The Hub's name for what it does; `encoder`: the facts of its record."""
    if encoder["kind"] == CROSS:
        return "text-ranking" if encoder.get("labels", 1) == 1 else "text-classification"
    return "sentence-similarity"


def tags(encoder: dict[str, Any]) -> list[str]:
    """What the Hub finds it by, beside the tags of every pruned model."""
    return _TAGS[pipeline_tag(encoder)]


def figure_table(encoder: dict[str, Any]) -> Table | None:
    """How close its embeddings are to the dense model's; None where that was not measured."""
    rows = [[title, f"{encoder[name]:.3f}"] for name, title in FIGURES.items() if name in encoder]
    return Table(["on held-out text", "this model"], rows) if rows else None
