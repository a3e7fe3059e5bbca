"""How long a forward pass of the encoder takes, timed so that a busy machine does little harm.

Models that are compared take turns, round by round: whatever else the machine does hits all of them. Of the times of
one model the lower quartile counts, since others can only make a pass slower.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy import embeddings
from ..configuration_schubert import SchuBertConfig
from ..errors import SchuBertError
from ..modeling_schubert import SchuBertModel
from ..run.progress import progress_bar
from ..run.provenance import machine, versions

ALIGNMENT = 64  # elements; every weight begins at a multiple of it, as weights with memory of their own do
PASSES = 2  # timed ones in a turn

Clock = Callable[[], float]  # seconds


class LatencyError(SchuBertError):
    """A forward pass that cannot be timed, or a shape whose time is not known."""


@dataclass(frozen=True)
class Workload:
    """What goes into a forward pass, and what computes it.

    Args:
        batch_size: sequences.
        seq_len: tokens per sequence; nothing is padded.
        device: a torch device; None is "cuda" where there is one, else "cpu".
        dtype: of the weights.

    Raises:
        LatencyError: `batch_size` or `seq_len` is no whole number of at least 1.
    """

    batch_size: int = 1
    seq_len: int = 128
    device: torch.device | str | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for name in ("batch_size", "seq_len"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise LatencyError(f"`{name}` is {value!r}; allowed is a whole number of at least 1.")
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        object.__setattr__(self, "device", torch.device(device))

    def inputs(self, config: SchuBertConfig) -> Tensor:
        """Random tokens, shape (batch_size, seq_len).

        Raises:
            LatencyError: the model has not so many positions.
        """
        if self.seq_len > config.max_position_embeddings:
            raise LatencyError(
                f"`seq_len` is {self.seq_len}, but the model has {config.max_position_embeddings} positions. "
                "Give at most that (`max_position_embeddings`)."
            )
        generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay where they are
        tokens = torch.randint(config.vocab_size, (self.batch_size, self.seq_len), generator=generator)
        return tokens.to(self.device)

    def to_json(self) -> dict[str, Any]:
        """What is timed, and on what machine."""
        return {
            "batch_size": self.batch_size,
            "sequence_length": self.seq_len,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "machine": machine(),
            "versions": {name: version for name, version in versions().items() if name in ("torch", "transformers")},
        }


def measure(
    config: SchuBertConfig,
    base: SchuBertConfig | None = None,
    *,
    batch_size: int = 1,
    seq_len: int = 128,
    rounds: int = 20,
    seconds: float = 20.0,
) -> dict[str, Any]:
    """Times encoder and pooler in float32, with random weights: times depend on the shape alone.

    Args:
        config, base: the model's shape and the dense one, which take turns; without `base` the model alone.
        batch_size, seq_len: see `Workload`; at most as many tokens as the model has positions.
        rounds, seconds: see `time_models`.

    Returns:
        Quartiles in milliseconds by model, and how and where they were measured; as JSON.
    """
    workload = Workload(batch_size, min(seq_len, config.max_position_embeddings))
    configs = {"model": config} if base is None else {"base": base, "model": config}
    times = time_models(list(configs.values()), workload, rounds=rounds, seconds=seconds)
    return {
        "milliseconds": {
            name: [round(quartile, 3) for quartile in quartiles(values)]
            for name, values in zip(configs, times, strict=True)
        },
        "runs": len(times[0]),
        **workload.to_json(),
    }


@torch.inference_mode()
def time_models(
    configs: Sequence[SchuBertConfig],
    workload: Workload,
    *,
    rounds: int = 20,
    seconds: float = 20.0,
    progress: bool = False,
) -> list[list[float]]:
    """Times models of these shapes, see `take_turns`.

    Args:
        configs: one per model.
        workload: what is computed, and where.
        rounds, seconds, progress: see `take_turns`.

    Returns:
        Per model the milliseconds of every timed pass.
    """
    inputs = [workload.inputs(config) for config in configs]
    models = _build(configs, workload)
    passes = [partial(_forward, model, tokens) for model, tokens in zip(models, inputs, strict=True)]
    # A single thread computes without a pause: the time that it had a core is the time that it takes, and what else
    # runs on the machine hardly counts. Several threads wait for each other; there only the clock on the wall tells.
    alone = torch.device(workload.device or "cpu").type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    return take_turns(passes, rounds=rounds, seconds=seconds, progress=progress, clock=clock)


def take_turns(
    passes: Sequence[Callable[[], Any]],
    *,
    rounds: int = 20,
    seconds: float = 20.0,
    progress: bool = False,
    clock: Clock = time.perf_counter,
) -> list[list[float]]:
    """Times passes in turns, in another order each round.

    A turn begins with a pass that does not count: right after another model's, up to a tenth was lost on cold caches,
    which a model in use does not lose.

    Args:
        passes: each computes once, to the end.
        rounds: turns of each pass, in which it is timed twice, after a round that warms up.
        seconds: no round after the third begins after that time.
        progress: show a bar.
        clock: gives seconds.

    Returns:
        For each pass the milliseconds of every time that counts; those of one round stand at the same places.
    """
    samples: list[list[float]] = [[] for _ in passes]
    order = list(range(len(passes)))
    shuffle = random.Random(0).shuffle
    began = time.monotonic()
    for number in progress_bar(None, range(rounds + 1), "timing", **({} if progress else {"disable": True})):
        if number > 3 and time.monotonic() - began > seconds:
            break
        shuffle(order)
        for index in order:
            times = [_milliseconds(passes[index], clock) for _ in range(1 + PASSES)]
            if number:  # in round 0 kernels are chosen and memory is got
                samples[index] += times[1:]
    return samples


def quartiles(values: Sequence[float]) -> list[float]:
    """The three quartiles, the lower one first."""
    return [float(quartile) for quartile in np.quantile(values, (0.25, 0.5, 0.75))]


def _build(configs: Sequence[SchuBertConfig], workload: Workload) -> list[nn.Module]:
    """Models in eval mode. All share the same random numbers: hundreds of them take no more memory than the largest.

    Within a model every weight has its own place, so that it goes through as much memory as it would in use.
    """
    with torch.device("meta"):  # nothing is drawn, nothing allocated
        models = [SchuBertModel(config).eval() for config in configs]
    rooms = [[math.ceil(x.numel() / ALIGNMENT) * ALIGNMENT for x in model.parameters()] for model in models]
    generator = torch.Generator().manual_seed(0)
    numbers = torch.empty(max(map(sum, rooms))).normal_(0, 0.02, generator=generator)
    numbers = numbers.to(workload.device, workload.dtype)
    for model, room in zip(models, rooms, strict=True):
        places = zip(model.named_parameters(), torch.split(numbers[: sum(room)], room), strict=True)
        weights = {name: place[: x.numel()].view(x.shape) for (name, x), place in places}
        model.load_state_dict(weights, assign=True)
        positions = torch.arange(model.config.max_position_embeddings, device=workload.device).expand((1, -1))
        embeddings(model).module.register_buffer("position_ids", positions, persistent=False)
    return models


def _forward(model: nn.Module, inputs: Tensor) -> None:
    model(inputs)
    if inputs.device.type != "cpu":
        torch.accelerator.synchronize(inputs.device)


def _milliseconds(compute: Callable[[], Any], clock: Clock) -> float:
    began = clock()
    compute()
    return 1000 * (clock() - began)
