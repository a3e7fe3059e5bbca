"""Tiny classifiers of equal layers, as the papers know them; and the benchmarks' folder on the import path."""

import sys
from pathlib import Path
from typing import Any

import torch
from oracles import batches, build, ragged
from torch import Tensor

from schubert_hf import SchuBertForSequenceClassification
from schubert_hf.pruning.units import Group

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "benchmarks"))

from study.masks import sublayer_of

WIDTHS: dict[str, Any] = {
    "hidden_sizes": [12, 12],
    "filter_sizes": [7, 7],
    "head_counts": [3, 3],
    "key_query_sizes": [5, 5],
    "value_sizes": [4, 4],
}
GROUPS = {Group("a", 0): 3, Group("a", 1): 3, Group("f", 0): 7, Group("f", 1): 7}


def classifier() -> Any:
    """In float64 and evaluation mode, the same at each call."""
    return build(SchuBertForSequenceClassification, ragged(**WIDTHS, num_labels=3))


def labelled(number: int = 2) -> list[dict[str, Tensor]]:
    """Batches of four sequences, some with padding, each with a label."""
    return [{**batch, "labels": torch.tensor([0, 2, 1, 0])} for batch in batches(number)]


def scale(model: Any, group: Group, unit: int, factor: float) -> Any:
    """Multiplies what one unit adds to the stream, in place."""
    output = sublayer_of(model, group).output
    size = output.in_features // GROUPS[group]
    with torch.no_grad():
        output.weight[:, unit * size : (unit + 1) * size] *= factor
    return model
