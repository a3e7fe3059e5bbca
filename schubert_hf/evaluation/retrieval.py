"""Retrieval on SQuAD: each question is asked of all paragraphs, and its own should come first.

MRR@10 is the mean of 1 / rank, 0 beyond the tenth; recall@10 the share of questions whose paragraph is among the ten
(Thakur et al. 2021, arXiv 2104.08663, use the same measures).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .embeddings import Similarity, cosines
from .evenly import evenly
from .squad_data import read_squad

TOP = 10
BLOCK = 1024  # questions at a time


def read_questions(path: Path, most: int | None = None) -> tuple[list[str], list[str], list[int]]:
    """Questions, paragraphs, and the number of each question's paragraph, from a file in SQuAD's layout.

    Args:
        most: of the questions, spread evenly; the paragraphs are always all there are.

    Raises:
        EvaluationDataError: it cannot be read, or has another layout.
    """
    rows = read_squad(path)
    paragraphs = list(dict.fromkeys(rows["context"]))
    number = {paragraph: place for place, paragraph in enumerate(paragraphs)}
    chosen = rows.select(evenly(len(rows), most))
    return list(chosen["question"]), paragraphs, [number[context] for context in chosen["context"]]


def rank_paragraphs(
    questions: Tensor, paragraphs: Tensor, wanted: list[int], similarity: Similarity = cosines
) -> dict[str, float]:
    """MRR@10 and recall@10.

    Args:
        questions: embeddings of shape (questions, width).
        paragraphs: (paragraphs, width).
        wanted: the number of each question's paragraph. One that ties with it stands before it.
    """
    ranks = []
    for start in range(0, len(questions), BLOCK):
        similar = similarity(questions[start : start + BLOCK], paragraphs)  # (block, paragraphs)
        own = similar.gather(1, torch.tensor(wanted[start : start + BLOCK])[:, None])
        ranks.append((similar >= own).sum(1))
    rank = torch.cat(ranks).double()  # (questions,), from 1
    hit = (rank <= TOP).double()
    return {f"mrr@{TOP}": float((hit / rank).mean()), f"recall@{TOP}": float(hit.mean())}
