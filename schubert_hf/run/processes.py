"""What a number was measured with: machine, device, versions. Goes into every JSON beside the seed and the data."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import accelerate
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, str_to_bool

from ..errors import SchuBertError


class ProcessesError(SchuBertError):
    """More processes were started than work together, or the main one of them met bad input."""


UNSUPPORTED = {
    "FSDP": "ACCELERATE_USE_FSDP",
    "DEEPSPEED": "ACCELERATE_USE_DEEPSPEED",
    "MEGATRON_LM": "ACCELERATE_USE_MEGATRON_LM",
    "TP": "ACCELERATE_USE_TP",
}


def check_supported(accelerator: Accelerator) -> None:
    """Raises `ProcessesError` where an accelerate config cuts a model into pieces: its shape could not change then."""
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind in UNSUPPORTED or getattr(accelerator, "parallelism_config", None) is not None:
        raise _unsupported(kind)


def _unsupported(kind: str) -> ProcessesError:
    return ProcessesError(
        f"The accelerate config asks for {kind}, which shares one model out among devices. Pruning changes its shape "
        "as it goes, and needs it whole on each; a BERT fits. Use data parallelism (`distributed_type: MULTI_GPU`, or "
        "`accelerate launch --multi_gpu`), and `--micro-batch-size` or `mixed_precision: bf16` to save memory."
    )


def make_accelerator(**options: Any) -> Accelerator:
    """An `Accelerator` that knows of all processes that were started.

    Without a GPU, Accelerate takes the processes of `torchrun` for runs of one process each unless it is told that
    they are on the CPU; they would then train apart and write into the same folder.

    Args:
        options: of `Accelerator`.

    Raises:
        ProcessesError: the processes do not find each other all the same, or the config asks for what does not work.
    """
    for kind, variable in UNSUPPORTED.items():  # here, or a missing library would be complained of first
        if str_to_bool(os.environ.get(variable, "false")):
            raise _unsupported(kind)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), **options)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise ProcessesError(
            f"{started} processes were started, but Accelerate sees {accelerator.num_processes}. Start one, or use "
            "`python -m torch.distributed.run --nproc_per_node N` or an accelerate config that fits this machine."
        )
    return accelerator


def on_main_process(accelerator: Accelerator, make: Callable[[], Any]) -> Any:
    """What the main process makes, as JSON, on every process; an error of bad input there is one on all of them.

    Raises:
        ValueError: `make` raised one; on the main process it is that one itself.
    """
    shared: list[Any] = [None, None]
    error = None
    if accelerator.is_main_process:
        try:
            shared[0] = make()
        except ValueError as raised:
            error, shared[1] = raised, str(raised)
    broadcast_object_list(shared)
    if shared[1] is not None:
        raise error or ProcessesError(shared[1])
    return shared[0]


def use_all_cores(accelerator: Accelerator, threads: int | None = None) -> None:
    """Lets a single process on the CPU compute with `threads` threads, by default one per core.

    `accelerate launch` without a config file hands OMP_NUM_THREADS=1 to a single CPU process, which leaves all cores
    but one idle. Several processes share the cores out among themselves, so they are left as they are.
    """
    if accelerator.device.type == "cpu" and accelerator.num_processes == 1:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(threads or available)


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Plain JSON."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
        "versions": {
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in (torch, transformers, accelerate)},
        },
    }
