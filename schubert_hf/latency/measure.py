"""How long a forward pass takes, beside that of the dense shape, and on what machine."""

from __future__ import annotations

from typing import Any

from ..configuration_schubert import SchuBertConfig
from ..run.provenance import machine, versions
from .timing import Workload, quartiles, time_models


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
        base: the dense shape, which takes turns with the other; None measures the one model.
        batch_size: sequences.
        seq_len: tokens per sequence; as many as the model has positions, where those are fewer.
        rounds: turns of each, with two timed passes.
        seconds: no round after the third begins after that time.

    Returns:
        Quartiles in milliseconds by model, and all that tells how and where they were measured; as JSON.
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
        "machine": machine(),
        "versions": {name: version for name, version in versions().items() if name in ("torch", "transformers")},
    }
