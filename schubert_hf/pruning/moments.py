"""First and second moments of activations over real tokens, streamed over batches: what data-aware pruning looks at.

Sums are float64 and of constant size, whatever the number of batches. Padding does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

Batch = Mapping[str, Tensor]
Reduce = Callable[[Tensor], Tensor]  # the sum of a tensor over all processes
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


@dataclass(frozen=True)
class HeadMoments:
    """Of one layer's heads, over real tokens, float64.

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
    """What the heads of every layer compute, in one pass.

    Args:
        model: a SchuBERT of any class, in evaluation mode.
        batches: on the model's device.
        reduce: sums a tensor over processes that see different batches.

    Returns:
        Per layer; None for one without heads.
    """
    layers = model.base_model.encoder.layer
    sums: list[dict[str, Tensor]] = [{} for _ in layers]
    tokens = torch.zeros(1, dtype=torch.float64, device=model.device)
    for batch in batches:
        real = real_tokens(batch)
        tokens += real.sum()
        seen = _heads_of_batch(model, batch)
        for total, found in zip(sums, seen, strict=True):
            for name, value in _sums(found, real).items():
                total[name] = total[name] + value if name in total else value
    together = reduce or (lambda tensor: tensor)
    number = together(tokens).cpu()
    result: list[HeadMoments | None] = []
    for total in sums:
        mean = {name: together(value).cpu() / number for name, value in total.items()}
        if not mean:
            result.append(None)
            continue
        centre = mean["value_mean"]
        mean["value"] = mean["value"] - centre[..., None] * centre[:, None]
        result.append(HeadMoments(**mean))
    return result


def real_tokens(batch: Batch) -> Tensor:
    """True where a token is no padding, shape (batch, seq)."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def encode(model: PreTrainedModel, batch: Batch) -> Any:
    """The base model on a batch that may also hold labels."""
    return model.base_model(**{name: batch[name] for name in INPUTS if name in batch})


def _heads_of_batch(model: PreTrainedModel, batch: Batch) -> list[dict[str, Tensor]]:
    """q, k and z of every layer, shape (batch, seq, a, size) each."""
    seen: list[dict[str, Tensor]] = []
    with ExitStack() as stack:
        for block in model.base_model.encoder.layer:
            found: dict[str, Tensor] = {}
            seen.append(found)
            heads = block.attention.self.num_attention_heads
            if not heads:
                continue

            def keep(name: str, tensor: Tensor, found: dict[str, Tensor] = found, heads: int = heads) -> None:
                found[name] = tensor.detach().double().view(*tensor.shape[:-1], heads, -1)

            for name in ("query", "key"):
                module = getattr(block.attention.self, name)
                hook = module.register_forward_hook(lambda _m, _a, out, name=name, keep=keep: keep(name, out))
                stack.callback(hook.remove)
            hook = block.attention.output.dense.register_forward_pre_hook(
                lambda _m, args, keep=keep: keep("value", args[0])
            )
            stack.callback(hook.remove)
        encode(model, batch)
    return seen


def _sums(found: Mapping[str, Tensor], real: Tensor) -> dict[str, Tensor]:
    if not found:
        return {}
    weight = real.double()[..., None, None]  # (batch, seq, 1, 1)
    key = found["key"]
    key = key - (key * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    query, key, value = (x[real] for x in (found["query"], key, found["value"]))  # (tokens, a, size)
    squares = {"query": query, "key": key, "value": value}
    return {name: torch.einsum("tan,tam->anm", x, x) for name, x in squares.items()} | {"value_mean": value.sum(0)}
