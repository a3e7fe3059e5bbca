"""What a page says of a sentence encoder or cross-encoder: the Hub's names for it, and its figures."""

from __future__ import annotations

from typing import Any

from ..encoders.kinds import CROSS
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
