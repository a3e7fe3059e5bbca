"""How long a forward pass of the encoder takes, timed so that a busy machine does little harm.

Models that are compared take turns, round by round: whatever else the machine does hits all of them. Of the times of
one model the lower quartile counts, since others can only make a pass slower.
"""

from __future__ import annotations

import copy
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..configuration_schubert import SchuBertConfig
from ..errors import SchuBertError
from ..modeling_schubert import SchuBertModel
from ..shape import Shape

ALIGNMENT = 64  # elements; every weight begins at a multiple of it, as weights with memory of their own do
PASSES = 2  # timed ones in a turn


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
        return {
            "batch_size": self.batch_size,
            "sequence_length": self.seq_len,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
        }


def time_model(
    config: SchuBertConfig,
    *,
    batch_size: int = 1,
    seq_len: int = 128,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Milliseconds of one forward pass of `SchuBertModel` in this shape: embeddings, encoder and pooler.

    The weights are random, since the time depends on the shape alone.

    Raises:
        LatencyError: `batch_size` or `seq_len` is out of range.
    """
    workload = Workload(batch_size, seq_len, device, dtype)
    return lower_quartile(time_models([config], workload)[0])


def time_shapes(config: SchuBertConfig, shapes: Sequence[Shape], workload: Workload, **limits: Any) -> list[float]:
    """Milliseconds of each shape: `config` gives everything else; `limits` are those of `time_models`."""
    samples = time_models([with_shape(config, shape) for shape in shapes], workload, **limits)
    return [lower_quartile(times) for times in samples]


@torch.inference_mode()
def time_models(
    configs: Sequence[SchuBertConfig],
    workload: Workload,
    *,
    rounds: int = 20,
    seconds: float = 20.0,
    progress: bool = False,
) -> list[list[float]]:
    """Times models of these shapes in turns, in another order each round.

    A turn begins with a pass that does not count: right after another model's, up to a tenth was lost on cold caches,
    which a model in use does not lose.

    Args:
        configs: one per model.
        workload: what is computed, and where.
        rounds: turns of each model, with two timed passes each, after one that warms up.
        seconds: no round after the third begins after that time.
        progress: show a bar.

    Returns:
        Per model the milliseconds of every timed pass.
    """
    inputs = [workload.inputs(config) for config in configs]
    models = _build(configs, workload)
    samples: list[list[float]] = [[] for _ in configs]
    order = list(range(len(configs)))
    shuffle = random.Random(0).shuffle
    began = time.monotonic()
    for number in tqdm(range(rounds + 1), desc="latency", disable=not progress, leave=False):
        if number > 3 and time.monotonic() - began > seconds:
            break
        shuffle(order)
        for index in order:
            times = [_milliseconds(models[index], inputs[index]) for _ in range(1 + PASSES)]
            if number:  # in round 0 kernels are chosen and memory is got
                samples[index] += times[1:]
    return samples


def with_shape(config: SchuBertConfig, shape: Shape) -> SchuBertConfig:
    """A copy of a config in another shape."""
    copied = copy.deepcopy(config)
    for name, sizes in shape.lists().items():
        setattr(copied, name, sizes)
    return copied


def quartiles(values: Sequence[float]) -> list[float]:
    """The three quartiles; of one value, three times that value."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3


def lower_quartile(values: Sequence[float]) -> float:
    """The first quartile."""
    return quartiles(values)[0]


def _build(configs: Sequence[SchuBertConfig], workload: Workload) -> list[nn.Module]:
    """Models in eval mode. All look at the same random numbers: hundreds of them take no more memory than the largest.

    Within a model every weight has its own place, so that it goes through as much memory as it would in use.
    """
    models = []
    for config in configs:
        with torch.device("meta"):  # nothing is drawn, nothing allocated
            models.append(SchuBertModel(config).eval())
    sizes = [sum(map(_room, model.parameters())) for model in models]
    generator = torch.Generator().manual_seed(0)
    numbers = torch.empty(max(sizes)).normal_(0, 0.02, generator=generator).to(workload.device, workload.dtype)
    for model in models:
        place, weights = 0, {}
        for name, parameter in model.named_parameters():
            weights[name] = numbers[place : place + parameter.numel()].view(parameter.shape)
            place += _room(parameter)
        model.load_state_dict(weights, assign=True)
        positions = torch.arange(model.config.max_position_embeddings, device=workload.device).expand((1, -1))
        model.embeddings.register_buffer("position_ids", positions, persistent=False)
    return models


def _room(parameter: Tensor) -> int:
    return math.ceil(parameter.numel() / ALIGNMENT) * ALIGNMENT


def _milliseconds(model: nn.Module, inputs: Tensor) -> float:
    on_cpu = inputs.device.type == "cpu"
    # A single thread computes without a pause: the time that it had a core is the time that it takes, and what else
    # runs on the machine hardly counts. Several threads wait for each other; there only the clock on the wall tells.
    clock = time.thread_time if on_cpu and torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    model(inputs)
    if not on_cpu:
        torch.accelerator.synchronize(inputs.device)
    return 1000 * (clock() - began)
