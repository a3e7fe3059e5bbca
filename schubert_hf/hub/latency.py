"""How long a forward pass takes, beside that of the dense shape, and on what machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..configuration_schubert import SchuBertConfig
from ..modeling_schubert import SchuBertModel
from ..provenance import machine, versions

Model = Callable[[Tensor], Any]


def measure(
    config: SchuBertConfig,
    base: SchuBertConfig | None = None,
    *,
    batch_size: int = 1,
    seq_len: int = 128,
    runs: int = 40,
    seconds: float = 20.0,
) -> dict[str, Any]:
    """Times encoder and pooler in float32, with random weights: times depend on the shape alone.

    The two models take turns, so that whatever else the machine does hits both.

    Args:
        base: the dense shape; None measures the one model.
        runs: forward passes of each, after three to warm up.
        seconds: no new pass begins after that time.

    Returns:
        Quartiles in milliseconds by model, and all that tells how and where they were measured; as JSON.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seq_len = min(seq_len, config.max_position_embeddings)
    inputs = torch.randint(config.vocab_size, (batch_size, seq_len), device=device)
    configs = {"model": config} if base is None else {"base": base, "model": config}
    times: dict[str, list[float]] = {name: [] for name in configs}
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        models = {name: SchuBertModel(shape).eval().to(device) for name, shape in configs.items()}
        for model in models.values():
            for _ in range(3):
                _time(model, inputs)
        end = time.monotonic() + seconds
        for _ in range(runs):
            for name, model in models.items():
                times[name].append(_time(model, inputs))
            if time.monotonic() > end:
                break
    return {
        "milliseconds": {name: [round(1000 * q, 3) for q in _quartiles(values)] for name, values in times.items()},
        "runs": len(times["model"]),
        "batch_size": batch_size,
        "sequence_length": seq_len,
        "dtype": "float32",
        "device": device.type,
        "machine": machine(),
        "versions": {name: version for name, version in versions().items() if name in ("torch", "transformers")},
    }


def _time(model: Model, inputs: Tensor) -> float:
    began = time.perf_counter()
    model(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
