"""First and second moments of what heads compute on real text, streamed over batches.

Sums are of constant size, whatever the number of batches, and in double precision on the CPU. Padding does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..anatomy import layers
from ..training.objective import real_tokens, sequences
from .precision import Batch, Reduce, exact, summed, widen


@dataclass(frozen=True)
class HeadMoments:
    """Of one layer's heads, over real tokens, float64, on the CPU.

    Attributes:
        query: E[q q^T], bias included, shape (a, k, k).
        key: of k, each sequence centred on its own mean, which the softmax does not see; shape (a, k, k).
        value: centred, of the values z that the attention mixed; shape (a, v, v).
        value_mean: E[z], bias included, shape (a, v).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    value_mean: Tensor


@torch.no_grad()
def measure_heads(
    model: PreTrainedModel, batches: Iterable[Batch], reduce: Reduce | None = None
) -> list[HeadMoments | None]:
    """The moments of every layer's heads, in one pass, by a model in evaluation mode; None for a layer without heads.

    `batches` are on the model's device; `reduce` sums a tensor over processes that see different batches.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in layers(model)]
    tokens = torch.zeros(1, dtype=torch.float64)
    for batch in map(sequences, batches):
        real = real_tokens(batch)
        tokens += real.sum().cpu()
        for total, heads in zip(sums, _heads_of_batch(model, batch), strict=True):
            for name, value in (_sums(heads, real) if heads else {}).items():
                total[name] = total[name] + value if name in total else value
    number = summed(tokens, reduce)
    result: list[HeadMoments | None] = []
    for total in sums:
        mean = {name: summed(value, reduce) / number for name, value in total.items()}
        if mean:
            centre = mean["value_mean"]
            mean["value"] = mean["value"] - centre[..., None] * centre[:, None]
        result.append(HeadMoments(**mean) if mean else None)
    return result


def _heads_of_batch(model: PreTrainedModel, batch: Batch) -> list[dict[str, Tensor]]:
    """q, k and z of every layer, shape (batch, seq, a, size) each."""
    records: list[dict[str, Tensor]] = [{} for _ in layers(model)]

    def keep(record: dict[str, Tensor], heads: int, name: str, tensor: Tensor) -> None:
        record[name] = widen(tensor.detach()).view(*tensor.shape[:-1], heads, -1)

    with ExitStack() as stack:
        for layer, record in zip(layers(model), records, strict=True):
            attention = layer.attention
            if not attention.heads:
                continue
            own = partial(keep, record, attention.heads)
            for name in ("query", "key"):
                hook = attention.inputs[name].register_forward_hook(lambda _m, _a, y, o=own, n=name: o(n, y))
                stack.callback(hook.remove)
            hook = attention.output.register_forward_pre_hook(lambda _m, args, own=own: own("value", args[0]))
            stack.callback(hook.remove)
        model.base_model(**batch)
    return records


def _sums(heads: Mapping[str, Tensor], real: Tensor) -> dict[str, Tensor]:
    key = heads["key"]
    weight = real.to(key.dtype)[..., None, None]  # (batch, seq, 1, 1)
    key = key - (key * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    query, key, value = (x[real] for x in (heads["query"], key, heads["value"]))  # (tokens, a, size)
    squares = {"query": query, "key": key, "value": value}
    sums = {name: torch.einsum("tan,tam->anm", x, x) for name, x in squares.items()} | {"value_mean": value.sum(0)}
    return {name: exact(value) for name, value in sums.items()}
