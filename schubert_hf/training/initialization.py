"""A start for pretraining from scratch in which heads already look at their neighbours.

A freshly initialised BERT attends to everything evenly and stays for thousands of steps at the loss of a bag of words,
until some heads have found the word before and the word after. Here they begin there: the position embeddings are
sinusoids (Vaswani et al. 2017, section 3.5), in which a shift is a rotation, and the query of each head is rotated
against its key by an offset of its own. It is an initialisation only, in the spirit of Trockman & Kolter, *Mimetic
Initialization of Self-Attention Layers*, ICML 2023: every weight is trained, and the model is an ordinary BERT.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ..anatomy import embeddings, layers

# Amplitude of the sinusoids, in units of `initializer_range`: after the LayerNorm they stand out in their channels.
AMPLITUDE = 8.0
# The score of the position a head looks for, before the softmax; the rest lies lower, falling with the distance.
PEAK = 6.0


@torch.no_grad()
def initialize_local_attention(model: PreTrainedModel) -> None:
    """Sets position embeddings, queries and keys of a fresh model, in place.

    The heads of a layer look at offsets -1, 1, -2, 2, ... in turn. The sinusoids fill the first `key_query_size`
    channels (an even number of them), with wave lengths from 2 pi to the number of positions.

    Args:
        model: a SchuBERT whose layers are alike, freshly initialised.
    """
    config = model.config
    size = config.key_query_sizes[0] // 2 * 2
    if size == 0:
        return  # a head of one channel has no room for a rotation
    positions, pairs = config.max_position_embeddings, size // 2
    longest = positions / (2 * torch.pi)
    frequencies = longest ** -(torch.arange(pairs) / max(1, pairs - 1))  # (pairs,) from 1 to 2 pi / positions
    angles = torch.arange(positions)[:, None] * frequencies  # (positions, pairs)
    table = embeddings(model).positions.weight
    amplitude = AMPLITUDE * config.initializer_range
    table.zero_()
    table[:, 0:size:2] = amplitude * angles.sin()
    table[:, 1:size:2] = amplitude * angles.cos()
    # What an amplitude becomes in the embeddings' LayerNorm, when words and sinusoids are independent.
    variance = config.initializer_range**2 + amplitude**2 * pairs / config.hidden_sizes[0]
    normalized = amplitude / variance**0.5
    scale = (PEAK * config.key_query_sizes[0] ** 0.5 / pairs) ** 0.5 / normalized
    for layer in layers(model):
        attention = layer.attention
        for head in range(attention.heads):
            offset = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
            rows = slice(head * attention.key_query_size, head * attention.key_query_size + size)
            attention.inputs["key"].weight[rows, :size] += scale * torch.eye(size)
            attention.inputs["query"].weight[rows, :size] += scale * _rotation(frequencies * offset)


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """Block-diagonal (2n, 2n): advances n pairs (sin, cos) by `angles`; sin(x + d) = sin x cos d + cos x sin d."""
    blocks = [torch.tensor([[d.cos(), d.sin()], [-d.sin(), d.cos()]]) for d in angles]
    matrix: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return matrix
