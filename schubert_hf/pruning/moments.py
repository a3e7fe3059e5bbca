"""First and second moments of what heads compute on real text, streamed over batches.

Sums are of constant size, whatever the number of batches, and in double precision on the CPU. Padding does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..anatomy import layers
from ..training.objective import inputs_of, real_tokens
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
    """The moments of every layer's heads, in one pass.

    Args:
        model: a SchuBERT of any class, in evaluation mode.
        batches: on the model's device.
        reduce: sums a tensor over processes that see different batches.

    Returns:
        Per layer; None for one without heads.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in layers(model)]
    tokens = torch.zeros(1, dtype=torch.float64)
    for batch in batches:
        real = real_tokens(batch)
        tokens += real.sum().cpu()
        for total, heads in zip(sums, _heads_of_batch(model, batch), strict=True):
            for name, value in _sums(heads, real).items():
                total[name] = total[name] + value if name in total else value
    number = summed(tokens, reduce)
    result: list[HeadMoments | None] = []
    for total in sums:
        mean = {name: summed(value, reduce) / number for name, value in total.items()}
        if not mean:
            result.append(None)
            continue
        centre = mean["value_mean"]
        mean["value"] = mean["value"] - centre[..., None] * centre[:, None]
        result.append(HeadMoments(**mean))
    return result


def _heads_of_batch(model: PreTrainedModel, batch: Batch) -> list[dict[str, Tensor]]:
    """q, k and z of every layer, shape (batch, seq, a, size) each."""
    seen: list[dict[str, Tensor]] = []
    with ExitStack() as stack:
        for layer in layers(model):
            attention = layer.attention
            record: dict[str, Tensor] = {}
            seen.append(record)
            if not attention.heads:
                continue

            def keep(
                name: str, tensor: Tensor, record: dict[str, Tensor] = record, heads: int = attention.heads
            ) -> None:
                record[name] = widen(tensor.detach()).view(*tensor.shape[:-1], heads, -1)

            for name in ("query", "key"):
                hook = attention.inputs[name].register_forward_hook(
                    lambda _m, _a, out, name=name, keep=keep: keep(name, out)
                )
                stack.callback(hook.remove)
            hook = attention.output.register_forward_pre_hook(lambda _m, args, keep=keep: keep("value", args[0]))
            stack.callback(hook.remove)
        model.base_model(**inputs_of(batch))
    return seen


def _sums(heads: Mapping[str, Tensor], real: Tensor) -> dict[str, Tensor]:
    if not heads:
        return {}
    key = heads["key"]
    weight = real.to(key.dtype)[..., None, None]  # (batch, seq, 1, 1)
    key = key - (key * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    query, key, value = (x[real] for x in (heads["query"], key, heads["value"]))  # (tokens, a, size)
    squares = {"query": query, "key": key, "value": value}
    sums = {name: torch.einsum("tan,tam->anm", x, x) for name, x in squares.items()} | {"value_mean": value.sum(0)}
    return {name: exact(value) for name, value in sums.items()}
