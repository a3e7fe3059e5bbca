"""How often a pruned classifier says what its dense model says, on text without labels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate.utils import send_to_device
from scipy.stats import spearmanr
from torch import Tensor
from transformers import PreTrainedModel

from ..data.stream import Batch
from ..errors import EvaluationDataError
from ..training.reading import head_of, read, several_labels


@torch.no_grad()
def agreement(
    own: PreTrainedModel, dense: PreTrainedModel, batches: Iterable[tuple[Batch, Batch]]
) -> dict[str, float]:
    """The share of equal predictions by term, such as `logits`; of a single score, Spearman's rank correlation.

    Where several labels may be right, a prediction is all of them together.

    Args:
        own, dense: with the same head.
        batches: of the same examples, as each of the two reads them; a tagger counts tokens, any other head examples.

    Raises:
        EvaluationDataError: the heads differ, there is none, or one score has fewer than three examples.
    """
    head = head_of(dense)
    if not head:
        raise EvaluationDataError(
            f"The dense model is a {type(dense).__name__}, which has no head. Give a classifier, a tagger, a question "
            "answerer, a reranker or a masked LM; sentence encoders are folders that sentence-transformers wrote."
        )
    if head_of(own) != head or own.config.num_labels != dense.config.num_labels:
        raise EvaluationDataError(
            f"The models are a {type(own).__name__} and a {type(dense).__name__}, with {own.config.num_labels} and "
            f"{dense.config.num_labels} labels. Give two with the same head."
        )
    several = several_labels(head, own) or several_labels(head, dense)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for pair in batches:
        ours, theirs = (
            read(head, one.eval(), send_to_device(batch, one.device)).outputs
            for one, batch in zip((own, dense), pair, strict=True)
        )
        for term, logits in ours.items():
            found.setdefault(term, []).append((logits.cpu(), theirs[term].cpu()))
    joined = {term: [torch.cat(part) for part in zip(*pairs, strict=True)] for term, pairs in found.items()}
    return {term: agree(*logits, several=several) for term, logits in joined.items()}


def agree(own: Tensor, dense: Tensor, *, several: bool = False) -> float:
    """The share of equal predictions; of a single score, Spearman's rank correlation. Logits of (items, labels).

    Args:
        several: whether any number of the labels may be right, those with logits above 0.

    Raises:
        EvaluationDataError: a single score has fewer than three items.
    """
    if several and own.shape[-1] > 1:
        return float(((own > 0) == (dense > 0)).all(-1).float().mean())
    if own.shape[-1] > 1:
        return float((own.argmax(-1) == dense.argmax(-1)).float().mean())
    if len(own) < 3:
        raise EvaluationDataError(f"There are {len(own)} examples; scores are ranked from 3 on. Give more text.")
    return float(spearmanr(own.flatten().numpy(), dense.flatten().numpy()).statistic)
