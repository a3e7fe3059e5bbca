"""Batches cut up by length, so that less padding is computed; on a CPU, where time follows the tokens.

Each part looks up a few rows of the tables of embeddings, but their gradients are whole tables, zeroed and added again
for each part. So they are gathered as rows, and made whole once for a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..data.stream import Batch
from ..run.memory import examples_in, take

PARTS = 4  # of a batch, at most
FEWEST = 8  # examples per part: matrix products of fewer rows are slower
WORTH = 0.9  # of the padded tokens must go, or the batch stays whole


def by_length(
    batches: Iterable[Mapping[str, Tensor]], device: torch.device, *, few_widths: bool = False
) -> Iterator[Batch]:
    """The same batches, on a CPU each of them by `cut_by_length`."""
    for batch in batches:
        yield from cut_by_length(batch, few_widths=few_widths) if device.type == "cpu" else [dict(batch)]


def cut_by_length(batch: Mapping[str, Tensor], *, few_widths: bool = False) -> list[Batch]:
    """The same examples in up to four batches, those of like length together, each without padding behind its longest.

    A step is the same: losses are summed over its examples, and what is padding says nothing. A batch stays whole
    where it is small, has no attention mask, or would hardly become smaller.

    Args:
        batch: with tensors of shape (batch, ...); those of the mask's shape, floats excepted, are cut like it.
        few_widths: keep a little padding, so that widths recur: oneDNN compiles a bfloat16 product for each shape
            that it meets, which takes longer than to multiply.
    """
    mask = batch.get("attention_mask")
    if mask is None or mask.ndim < 2:
        return [dict(batch)]
    size, width = examples_in(batch), mask.shape[-1]
    places = torch.arange(1, width + 1)
    lengths = (mask.cpu().bool() * places).flatten(1).amax(1)  # (batch,)
    order = lengths.argsort(stable=True)
    parts = [part for part in order.tensor_split(max(1, min(PARTS, size // FEWEST))) if len(part)]
    longest = [max(1, int(lengths[part].max())) for part in parts]
    if few_widths:
        longest = [min(_next_width(most), width) for most in longest]
    if sum(len(part) * most for part, most in zip(parts, longest, strict=True)) > WORTH * size * width:
        return [dict(batch)]
    return [_cut(take(batch, part.tolist()), most) for part, most in zip(parts, longest, strict=True)]


@contextlib.contextmanager
def sparse_gradients(module: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside it tables of embeddings gather their gradients as rows; behind it these are dense, as optimizers want."""
    tables = [one for one in module.modules() if isinstance(one, nn.Embedding) and not one.sparse] if enabled else []
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for table in tables:
            table.sparse = False
            if table.weight.grad is not None and table.weight.grad.is_sparse:
                table.weight.grad = table.weight.grad.to_dense()


def _next_width(length: int) -> int:
    """At least `length`: one of four widths in each octave, such as 64, 80, 96, 112, 128, 160."""
    step = 1 << max(0, (length - 1).bit_length() - 3)
    return -(-length // step) * step


def _cut(batch: Mapping[str, Tensor], width: int) -> Batch:
    shape = batch["attention_mask"].shape

    def narrow(value: Tensor) -> Tensor:
        return value[..., :width] if value.shape == shape and not value.is_floating_point() else value

    return {name: narrow(value) for name, value in batch.items()}
