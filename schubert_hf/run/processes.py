"""The processes of a run: all that were started work together, and an error on the main one reaches them all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, str_to_bool

from ..errors import SchuBertError, one_line_errors
from .interrupt import Interrupted
from .progress import show_on_main_process_only
from .provenance import count_cores

UNSUPPORTED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP")


class ProcessesError(SchuBertError):
    """More processes were started than work together, or the main one of them met bad input."""


def check_supported(accelerator: Accelerator) -> None:
    """Raises `ProcessesError` where an accelerate config cuts a model into pieces: its shape could not change then."""
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind in UNSUPPORTED or getattr(accelerator, "parallelism_config", None) is not None:
        _refuse(kind)


def _refuse(kind: str) -> None:
    raise ProcessesError(
        f"The accelerate config asks for {kind}, which shares one model out among devices. Pruning changes its shape "
        "as it goes, and needs it whole on each; a BERT fits. Use data parallelism (`distributed_type: MULTI_GPU`, or "
        "`accelerate launch --multi_gpu`), and `--micro-batch-size` or `mixed_precision: bf16` to save memory."
    )


def make_accelerator(**options: Any) -> Accelerator:
    """An `Accelerator` that knows of all processes that were started.

    Without a GPU, unless it is given `cpu=True`, Accelerate takes the processes of `torchrun` for separate runs, which
    would write into the same folder.

    Args:
        options: of `Accelerator`.

    Raises:
        ProcessesError: the processes do not find each other, or the config asks for what is not supported.
    """
    for kind in UNSUPPORTED:  # here, or a missing library would be reported first
        if str_to_bool(os.environ.get(f"ACCELERATE_USE_{kind}", "false")):
            _refuse(kind)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), **options)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise ProcessesError(
            f"{started} processes were started, but Accelerate sees {accelerator.num_processes}. Start one, or use "
            "`python -m torch.distributed.run --nproc_per_node N` or an accelerate config that fits this machine."
        )
    return accelerator


@contextlib.contextmanager
def script(threads: int | None = None, **options: Any) -> Iterator[Accelerator]:
    """What every script does around its work, which gets the accelerator of all its processes.

    A single process on the CPU uses all cores, progress bars are shown on the main process only, errors caused by user
    input are one line, and a signal ends the run with its own exit code. `options` are those of `Accelerator`.
    """
    with one_line_errors():
        accelerator = make_accelerator(**options)
        use_all_cores(accelerator, threads)
        show_on_main_process_only(accelerator)
        try:
            yield accelerator
        except Interrupted as stop:
            accelerator.end_training()  # trackers write what they hold
            if accelerator.is_main_process:
                sys.stderr.write(f"{stop}. Resume it with --resume.\n")
            raise SystemExit(stop.exit_code) from None
    accelerator.end_training()


def on_main_process(accelerator: Accelerator, make: Callable[[], Any]) -> Any:
    """What the main process makes, as JSON, on every process; an error of bad input there is raised on all of them.

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

    `accelerate launch` without a config file sets OMP_NUM_THREADS=1, which leaves all cores but one idle.
    """
    if accelerator.device.type == "cpu" and accelerator.num_processes == 1:
        torch.set_num_threads(threads or count_cores())
