"""How close a model's embeddings are to those of the dense model: vectors, similarities, neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ..errors import EvaluationDataError

NEIGHBOURS = 10
FEWEST = 3  # texts; of two there is one similarity, which has no rank
MOST = 2000  # texts whose similarities are ranked: 2 million pairs

# From embeddings (n, width) and (m, width) to similarities (n, m).
Similarity = Callable[[Tensor, Tensor], Tensor]


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """The cosine of each embedding with each other, (n, width) and (m, width) to (n, m)."""
    return normalize(left, dim=-1) @ normalize(right, dim=-1).mT


def compare_embeddings(own: Tensor, dense: Tensor, similarity: Similarity = cosines) -> dict[str, float]:
    """The figures of a pruned sentence encoder beside its dense model, on the same texts.

    Args:
        own: embeddings of shape (texts, width).
        dense: of the dense model, (texts, dense width).
        similarity: the encoder's own.

    Returns:
        `cosine`, the mean over the texts, where both have the same width; `rank_correlation`, Spearman's, of the
        similarities of all pairs of texts; `neighbours`, the mean share of a text's ten nearest others that stay.

    Raises:
        EvaluationDataError: there are fewer than three texts, or not as many of one as of the other.
    """
    if len(own) != len(dense) or len(own) < FEWEST:
        raise EvaluationDataError(
            f"There are embeddings of {len(own)} and {len(dense)} texts. Give the same texts, {FEWEST} or more."
        )
    own, dense = own[:MOST].float(), dense[:MOST].float()
    same = {"cosine": float(cosine_similarity(own, dense).mean())} if own.shape == dense.shape else {}
    ours, theirs = similarity(own, own), similarity(dense, dense)  # (texts, texts)
    pairs = np.triu_indices(len(own), 1)
    correlation = spearmanr(ours.numpy()[pairs], theirs.numpy()[pairs]).statistic
    return {**same, "rank_correlation": float(correlation), "neighbours": _kept_neighbours(ours, theirs)}


def _kept_neighbours(ours: Tensor, theirs: Tensor) -> float:
    """Mean over the texts of the share of neighbours that two matrices of similarities (texts, texts) share."""
    number = min(NEIGHBOURS, len(ours) - 1)
    apart = torch.eye(len(ours), dtype=torch.bool)  # nobody is their own neighbour
    near, were = (x.masked_fill(apart, -torch.inf).topk(number).indices for x in (ours, theirs))
    return float((near[:, :, None] == were[:, None, :]).any(-1).float().mean())
