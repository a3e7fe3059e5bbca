"""What training needs of memory, from shapes: a run that its device cannot hold says so before it starts.

An estimate is meant to be a little too low, never too high, since a run that fits must not be refused. So it counts
what surely stands in memory at one time: weights, gradients, AdamW's moments, and what autograd saves for the
backward pass. Left out are what kernels need for a moment, attention masks (a batch without padding has none), the
fragments between tensors, what alphas save, and what data-parallel training adds.

Per-layer widths are written in the paper's letters: h hidden, f filters, a heads, k key and query, v value; V is the
vocabulary. Sizes are bytes unless named otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from ..configuration_schubert import LAYER_LISTS, SchuBertConfig
from ..errors import SchuBertError

FLOAT = 4  # bytes of a float32
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
# Tensors that an activation function and the layer behind it save: most its input and its output, some the output
# alone, and those written out in Python every step between.
ACTIVATION_TENSORS = {"relu": 1, "sigmoid": 1, "tanh": 1, "gelu_new": 5}


class MemoryLimitError(SchuBertError):
    """A training run that needs more memory than its device has."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training needs, part by part.

    Attributes:
        weights: of the trained model, in float32.
        gradients: of the parameters that are trained.
        optimizer: AdamW's two moments of each of them.
        activations: saved for the backward pass of one micro-batch.
        teacher: weights of a teacher, and what its predictions add to the backward pass; 0 without one.
        accumulates: whether a step has several micro-batches: only then are there gradients while activations are
            at their fullest, otherwise the ones grow as the others are freed.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    teacher: int
    accumulates: bool = False

    @property
    def total(self) -> int:
        """The most that surely stands in memory at one time."""
        together = sum if self.accumulates else max
        return self.weights + self.optimizer + self.teacher + together((self.gradients, self.activations))

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimizer", "activations", "teacher")
        return ", ".join(f"{name} {getattr(self, name) / GIB:.2f}" for name in parts if getattr(self, name)) + " GiB"


def estimate_training(
    config: SchuBertConfig,
    parameters: int,
    *,
    examples: int,
    seq_len: int,
    masked: float = 0.15,
    teacher: bool = False,
    mixed: bool = False,
    trained: int | None = None,
    accumulates: bool = False,
    device: str = "cpu",
) -> MemoryEstimate:
    """The memory of training with masked-language-model and next-sentence losses, see `PretrainingObjective`.

    Gradient checkpointing is not accounted for: a model that uses it needs less.

    Args:
        config: of the trained model; with the attention implementation that was set, otherwise taken for sdpa.
        parameters: how many the model has.
        examples: of one micro-batch.
        seq_len: tokens per example, padding included.
        masked: share of the tokens that are predicted.
        teacher: whether there is one, of the same shape, whose predictions are followed.
        mixed: whether the forward pass runs under autocast, in half precision.
        trained: how many parameters have gradients and moments; default: all.
        accumulates: see `MemoryEstimate`.
        device: its type, which decides what dropout and attention save: on the CPU, dropout masks are floats, and
            sdpa keeps the probabilities where these have dropout; elsewhere masks are bytes and sdpa is fused.
    """
    trained = parameters if trained is None else trained
    sizes = _Sizes(
        batch=examples,
        length=seq_len,
        number=2 if mixed else FLOAT,
        readers=3 if mixed else 1,
        mask=None if device == "cpu" else 1,
    )
    predicted = int(masked * sizes.tokens)
    activations = _embeddings(config, sizes) + _heads(config, sizes, predicted)
    for h, f, a, k, v in _layers(config):
        activations += _attention(config, sizes, h, a, k, v) + _filters(config, sizes, h, f)
    if mixed:
        activations += _cast_weights(config) * sizes.number
    # Of both, the log-probabilities once more, at the temperature (`kl_div` saves the teacher's exponentiated).
    follow = 2 * FLOAT * (predicted * config.vocab_size + 2 * examples)
    return MemoryEstimate(
        weights=FLOAT * parameters,
        gradients=FLOAT * trained,
        optimizer=2 * FLOAT * trained,
        activations=activations,
        teacher=FLOAT * parameters + follow if teacher else 0,
        accumulates=accumulates,
    )


@dataclass(frozen=True)
class _Sizes:
    """What the closed forms below share.

    Attributes:
        batch: examples.
        length: tokens per example.
        number: bytes of what a matrix product reads.
        readers: copies of one input that query, key and value save: autocast makes each its own.
        mask: bytes of an element of a dropout mask; None: as many as its input's.
    """

    batch: int
    length: int
    number: int
    readers: int
    mask: int | None

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    def dropout(self, probability: float, number: int) -> int:
        """Bytes per element, of `number` bytes, that dropout saves."""
        return (self.mask or number) if probability else 0

    def norm(self, width: int) -> int:
        """Of a LayerNorm over all tokens: its input, and of each token mean and deviation."""
        return self.tokens * (width + 2) * FLOAT


def _layers(config: SchuBertConfig) -> list[tuple[int, ...]]:
    """(h, f, a, k, v) of every layer."""
    return list(zip(*(getattr(config, name) for name in LAYER_LISTS), strict=True))


def _embeddings(config: SchuBertConfig, sizes: _Sizes) -> int:
    width = config.hidden_sizes[0]
    return sizes.norm(width) + sizes.tokens * width * sizes.dropout(config.hidden_dropout_prob, FLOAT)


def _attention(config: SchuBertConfig, sizes: _Sizes, h: int, a: int, k: int, v: int) -> int:
    """The attention sublayer: input, attention, output projection, dropout, LayerNorm."""
    end = _sublayer_end(config, sizes, h, bool(a))
    if not a:
        return end
    tokens, number = sizes.tokens, sizes.number
    projected = sizes.readers * tokens * h * number + tokens * a * v * number  # into query, key, value; into output
    return end + projected + _scores(config, sizes, a, k, v)


def _scores(config: SchuBertConfig, sizes: _Sizes, a: int, k: int, v: int) -> int:
    """Between the projections of a attention heads: queries, keys, values, and what the implementation keeps."""
    drop, width = config.attention_probs_dropout_prob, max(k, v)
    tokens, cpu = sizes.tokens * a, sizes.mask is None
    if config._attn_implementation == "eager":
        number = sizes.number
        # The probabilities and, with dropout, its mask and what is left of them.
        kept = number + (sizes.dropout(drop, number) + number if drop else 0)
        return tokens * (2 * k + v) * number + tokens * sizes.length * kept
    if cpu and drop:
        # The fused kernel has no dropout there: matrix products in float32, at the common width of keys and values.
        return tokens * 3 * width * FLOAT + tokens * sizes.length * 3 * FLOAT
    # Where it is cropped, or laid out heads first like the padded queries, the output is copied for the projection,
    # which `_attention` counts.
    copied = k > v or (cpu and k < v and a > 1)
    return tokens * (3 + copied) * width * sizes.number + tokens * FLOAT


def _filters(config: SchuBertConfig, sizes: _Sizes, h: int, f: int) -> int:
    """The feed-forward sublayer: input, activation function, way back, dropout, LayerNorm."""
    end = _sublayer_end(config, sizes, h, bool(f))
    return end + sizes.tokens * (h + _activated(config) * f) * sizes.number if f else end


def _sublayer_end(config: SchuBertConfig, sizes: _Sizes, h: int, has_units: bool) -> int:
    # Without units only a bias is left, which autocast leaves in float32.
    number = sizes.number if has_units else FLOAT
    return sizes.tokens * h * sizes.dropout(config.hidden_dropout_prob, number) + sizes.norm(h)


def _activated(config: SchuBertConfig) -> int:
    return ACTIVATION_TENSORS.get(config.hidden_act, 2)


def _heads(config: SchuBertConfig, sizes: _Sizes, predicted: int) -> int:
    """The MLM head at the predicted positions, and the pooler with the NSP head."""
    first, last, number = config.hidden_sizes[0], config.hidden_sizes[-1], sizes.number
    # Transform, its activation function, LayerNorm, decoder; log-probabilities in float32.
    mlm = predicted * ((last + (_activated(config) + 1) * first) * number + config.vocab_size * FLOAT)
    # The pooler reads the first token, but keeps the tensor of all of them, unless autocast made a copy of that one.
    pooled = (sizes.tokens if sizes.readers == 1 else sizes.batch) * last * number
    return mlm + pooled + sizes.batch * last * number


def _cast_weights(config: SchuBertConfig) -> int:
    """Numbers in all matrices of linear layers: autocast saves a copy of each in half precision."""
    first, last = config.hidden_sizes[0], config.hidden_sizes[-1]
    layers = sum(h * a * (2 * k + 2 * v) + 2 * h * f for h, f, a, k, v in _layers(config))
    return layers + last * last + last * first + first * config.vocab_size + 2 * last


def device_memory(device: torch.device, processes: int = 1) -> tuple[int, int]:
    """(free, total) bytes for one process.

    Free is what it could have now: with an accelerator, what PyTorch has already reserved for this process counts.
    Total is without swap.

    Args:
        device: an accelerator that PyTorch knows the memory of, or anything else for the machine's own memory, within
            the limit of a container (cgroup v2).
        processes: of the run on this machine. They share its memory evenly, while each has an accelerator of its own.
    """
    module: Any = torch.get_device_module(device)
    if hasattr(module, "mem_get_info") and hasattr(module, "memory_reserved"):
        free, total = module.mem_get_info(device)
        return min(total, free + module.memory_reserved(device)), total
    memory = psutil.virtual_memory()
    free, total = _within_cgroup(memory.available, memory.total)
    return free // processes, total // processes


def _within_cgroup(free: int, total: int) -> tuple[int, int]:
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="utf-8"))
        used = int((CGROUP / "memory.current").read_text(encoding="utf-8"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
        used -= int(stat["inactive_file"])  # cached files make room
    except (OSError, ValueError, KeyError):  # no such group, or no limit: "max"
        return free, total
    return max(0, min(free, limit - used)), min(total, limit)


def check_fits(
    estimate_for: Callable[[int], MemoryEstimate], *, examples: int, device: torch.device, processes: int = 1
) -> str | None:
    """Whether a run fits into the memory of its device.

    Only more than all of the device's memory is an error: what is in use now may be free again when it is needed.

    Args:
        estimate_for: the estimate for a number of examples in a micro-batch.
        examples: of a micro-batch as the run is set up.
        device: that trains.
        processes: see `device_memory`.

    Returns:
        One line of warning if the run needs more than is free now, else None.

    Raises:
        MemoryLimitError: it needs more than there is; with the largest micro-batch that does not.
    """
    free, total = device_memory(device, processes)
    estimate = estimate_for(examples)
    share = f" for each of {processes} processes" if processes > 1 and device.type == "cpu" else ""
    needed = f"micro-batches of {examples} examples need about {estimate.total / GIB:.2f} GiB to train"
    if estimate.total <= total:
        if estimate.total <= free:
            return None
        return (
            f"The run may run out of memory: {needed}, and `{device}` has {free / GIB:.2f} of {total / GIB:.2f} GiB "
            f"free now{share}."
        )
    # A smaller micro-batch is one of several.
    smaller = range(1, examples)
    fitting = bisect_right(smaller, total, key=lambda size: replace(estimate_for(size), accumulates=True).total)
    way_out = (
        f"Give `--micro-batch-size` {fitting} or less: the step stays the same."
        if fitting
        else "Not even `--micro-batch-size` 1 fits: the model is too large for this device. Train a smaller one, or "
        "on a larger device."
    )
    raise MemoryLimitError(
        f"The run does not fit: {needed} ({estimate}), but `{device}` has {total / GIB:.2f} GiB{share}. {way_out}"
    )
