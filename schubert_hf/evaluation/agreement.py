"""How often a pruned classifier says what its dense model says, on text without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from scipy.stats import spearmanr
from torch import Tensor
from transformers import PreTrainedModel

from ..data.stream import Collator
from ..errors import EvaluationDataError
from ..training.reading import head_of, read

BATCH = 32


@torch.no_grad()
def agreement(
    own: PreTrainedModel, dense: PreTrainedModel, examples: Sequence[dict[str, Any]], collator: Collator
) -> dict[str, float]:
    """The share of equal predictions by term, such as `logits`; of a single score, Spearman's rank correlation.

    Args:
        own, dense: with the same head.
        examples: with `input_ids`; a tagger counts tokens, any other head examples.

    Raises:
        EvaluationDataError: the heads differ, there is none, or one score has fewer than three examples.
    """
    head = head_of(dense)
    if not head or head_of(own) != head or own.config.num_labels != dense.config.num_labels:
        raise EvaluationDataError(
            f"The models are a {type(own).__name__} and a {type(dense).__name__}, with {own.config.num_labels} and "
            f"{dense.config.num_labels} labels. Give two with the same head."
        )
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for start in range(0, len(examples), BATCH):
        batch = collator([examples[number] for number in range(start, min(start + BATCH, len(examples)))])
        ours, theirs = (read(head, one.eval(), send_to_device(batch, one.device)).outputs for one in (own, dense))
        for term, logits in ours.items():
            found.setdefault(term, []).append((logits.cpu(), theirs[term].cpu()))
    return {term: agree(*(torch.cat(part) for part in zip(*pairs, strict=True))) for term, pairs in found.items()}


def agree(own: Tensor, dense: Tensor) -> float:
    """The share of equal predictions; of a single score, Spearman's rank correlation. Logits of (items, labels).

    Raises:
        EvaluationDataError: a single score has fewer than three items.
    """
    if own.shape[-1] > 1:
        return float((own.argmax(-1) == dense.argmax(-1)).float().mean())
    if len(own) < 3:
        raise EvaluationDataError(f"There are {len(own)} examples; scores are ranked from 3 on. Give more text.")
    return float(spearmanr(own.flatten().numpy(), dense.flatten().numpy()).statistic)
