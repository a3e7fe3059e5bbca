"""Paraphrases: average precision of the similarity of two sentences, on MRPC (Dolan & Brockett 2005)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..errors import EvaluationDataError
from .embeddings import Similarity, cosines
from .task_data import find_files
from .tasks import TASKS
from .tsv import read_tsv


def read_paraphrases(folder: Path) -> tuple[list[str], list[str], list[int]]:
    """First sentences, second sentences, and 1 for paraphrases: the dev split of MRPC, from its official file.

    Raises:
        EvaluationDataError: there is no such file, or it has another layout.
    """
    task = TASKS["mrpc"]
    (path,) = find_files(task.name, folder, ["validation"], "*.tsv").values()
    rows = read_tsv(task, path)
    first, second = (list(rows[column]) for column in task.columns)
    return first, second, list(rows["label"])


def average_precision(first: Tensor, second: Tensor, labels: list[int], similarity: Similarity = cosines) -> float:
    """Of pairs of embeddings, (pairs, width) each, ordered by their similarity; 1 where all paraphrases come first.

    Raises:
        EvaluationDataError: all labels are the same.
    """
    from sklearn.metrics import average_precision_score

    if len(set(labels)) < 2:
        raise EvaluationDataError("All pairs have the same label. Give paraphrases and others.")
    similar = [float(similarity(a[None], b[None])) for a, b in zip(first, second, strict=True)]
    return float(average_precision_score(labels, similar))
