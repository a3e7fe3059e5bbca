"""What a pruned encoder is handed out as: the model of sentence-transformers that was given, around a smaller BERT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import PreTrainedModel

from ..data.stream import Collator
from ..evaluation.embeddings import compare_embeddings
from ..evaluation.evenly import evenly
from ..pruning.result import PruningResult
from ..training.objective import inputs_of, real_tokens
from . import carrying
from .cross_encoder import CrossEncoder
from .dense_width import channels_left, fit_map
from .kinds import CROSS, SENTENCE
from .sentence_encoder import SentenceEncoder

FITTED = 2048  # texts that the map back to the dense width is fitted on
COMPARED = 512  # held-out texts
BATCH = 32


@dataclass(frozen=True)
class Package:
    """A result as sentence-transformers has it.

    Attributes:
        model: a `SentenceTransformer` or `CrossEncoder`, ready to use.
        facts: for the record: its `kind`, `width`, and how close it is to the dense model on held-out text.
    """

    model: Any = field(repr=False)
    facts: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Writes the folder that its library opens, with the files that let it do so without this package."""
        carrying.save(self.model, folder)


def packager(
    encoder: SentenceEncoder | CrossEncoder, train: Any, held_out: Any, collator: Collator, *, own_space: bool = False
) -> Callable[[PruningResult], Package]:
    """What makes a package of each result of a run.

    Args:
        encoder: that is pruned.
        train: examples with `input_ids`, by number.
        held_out: examples of the same kind that nothing was trained on.
        collator: makes batches of them.
        own_space: leave the embeddings as narrow as the pruned model makes them.
    """
    if isinstance(encoder, CrossEncoder):
        facts = {"kind": CROSS, "labels": encoder.model.config.num_labels, "max_length": encoder.max_length}
        return lambda result: Package(encoder.with_model(result.model), facts)

    def package(result: PruningResult) -> Package:
        model, dense = result.model, encoder.model.to(result.model.device)
        width = dense.config.hidden_size
        channels = channels_left(result.plans, width)
        found = None
        if len(channels) < width and not own_space:
            texts = [train[number] for number in _spread(train, FITTED)]
            narrow, whole = (pool(encoder, one, texts, collator) for one in (model, dense))
            found = fit_map(narrow, whole, channels, width)
        texts = [held_out[number] for number in _spread(held_out, COMPARED)]
        own, wanted = (pool(encoder, one, texts, collator) for one in (model, dense))
        if found is not None:
            own = torch.nn.functional.linear(own, *found)
        own, wanted = encoder.finish(own), encoder.finish(wanted)
        facts: dict[str, Any] = {
            "kind": SENTENCE,
            "width": own.shape[1],
            "dense_width": wanted.shape[1],
            "map_parameters": 0 if found is None else sum(part.numel() for part in found),
            "texts": len(texts),
            "max_length": encoder.max_length,
            **(compare_embeddings(own, wanted, encoder.source.similarity) if len(texts) > 2 else {}),
        }
        return Package(encoder.with_model(model, found), facts)

    return package


@torch.no_grad()
def pool(
    encoder: SentenceEncoder, model: PreTrainedModel, texts: Sequence[dict[str, Any]], collator: Collator
) -> Tensor:
    """Pooled token states of examples, (texts, pooled width), in their order, on the CPU."""
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]["input_ids"]))  # little padding
    used: Any = model.eval().base_model
    found: list[Tensor] = []
    for start in range(0, len(order), BATCH):
        batch = send_to_device(collator([texts[number] for number in order[start : start + BATCH]]), model.device)
        states = used(**inputs_of(batch)).last_hidden_state
        found.append(encoder.pool(states, real_tokens(batch).long(), batch["input_ids"]).float().cpu())
    return torch.cat(found)[torch.tensor(order).argsort()]


def _spread(examples: Any, number: int) -> Sequence[int]:
    """Numbers of so many examples at most, spread evenly; of a stream, whose length nobody knows, the next ones."""
    try:
        total = len(examples)
    except TypeError:
        return range(number)
    return evenly(total, number)
