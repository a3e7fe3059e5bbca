"""What int8 costs: an export's outputs next to those of the float32 model, on text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..encoders.sentence_encoder import POOLED
from ..evaluation.agreement import agree
from ..evaluation.embeddings import compare_embeddings, cosines
from ..training.objective import real_tokens
from .batches import Batch
from .errors import ExportError
from .formats import Run
from .subject import STATES, Subject


@torch.no_grad()
def quality(name: str, subject: Subject, run: Run, batches: Sequence[Batch]) -> dict[str, float]:
    """Figures of an export.

    Returns:
        Of an encoder those of `compare_embeddings`, over sentence embeddings or, of a bare encoder, the means of its
        real tokens' states. Of a head, for each of its outputs, the share of items whose largest logit is the float32
        model's; of a single score, the rank correlation.

    Raises:
        ExportError: the export gives numbers that are not finite.
    """
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for batch in batches:
        ours, theirs = (_items(subject, outputs, batch) for outputs in (run(batch), subject.function(**batch)))
        for term, items in ours.items():
            pairs.setdefault(term, []).append((items, theirs[term]))
    outputs = {term: [torch.cat(side) for side in zip(*parts, strict=True)] for term, parts in pairs.items()}
    for term, (own_items, _) in outputs.items():
        if not bool(torch.isfinite(own_items).all()):
            raise ExportError(f"The export `{name}` gives numbers for `{term}` that are not finite. Nothing is kept.")
    if POOLED in outputs:
        own, wanted = outputs[POOLED]
        return compare_embeddings(
            own, wanted, cosines if subject.sentence_encoder is None else subject.sentence_encoder.source.similarity
        )
    return {term: agree(*items) for term, items in outputs.items()}


def _items(subject: Subject, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """The outputs that count, (items, width): padding is no item of a tagger, nor a place for an answer."""
    if POOLED in outputs:
        return {POOLED: outputs[POOLED]}
    if STATES in outputs:
        return {POOLED: _pool(subject, outputs[STATES], batch["attention_mask"])}
    real, found = real_tokens(batch), {}
    for term, logits in outputs.items():
        if subject.head == "QuestionAnswering":
            found[term] = logits.masked_fill(~real, -1e4)
        elif logits.shape[:-1] == real.shape and subject.head != "MultipleChoice":
            found[term] = logits[real]
        else:
            found[term] = logits
    if subject.head == "QuestionAnswering":  # batches are of different lengths; what counts is the place
        width = subject.longest
        found = {term: torch.nn.functional.pad(x, (0, width - x.shape[-1]), value=-1e4) for term, x in found.items()}
    return found


def _pool(subject: Subject, states: Tensor, mask: Tensor) -> Tensor:
    if subject.sentence_encoder is not None:
        return subject.sentence_encoder.embed(states, mask)
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)
