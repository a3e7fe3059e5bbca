"""How much memory a process needs to open a model and run it once."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from ..latency.timing import Workload
from .backends import BACKENDS, random_inputs
from .checkpoint import Checkpoint

STATUS = Path("/proc/self/status")


def peak_memory(name: str, kind: str, workloads: Sequence[Workload]) -> list[int | None]:
    """Bytes at the peak, beyond those that the process had with its libraries imported; for each workload.

    Measured in a process of its own, since memory that was once needed is not given back, and shared with what was
    run before. On an accelerator its own memory counts.

    Args:
        name: of the checkpoint.
        kind: key of `BACKENDS`.
        workloads: on one device, in one dtype. They are run in the order of their size: a peak only rises.

    Returns:
        None where the system does not tell, or has not as much.
    """
    unknown: list[int | None] = [None] * len(workloads)
    if not STATUS.exists() and torch.device(workloads[0].device or "cpu").type == "cpu":
        return unknown
    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        try:
            return [*pool.submit(measure_here, name, kind, workloads).result()]
        except BrokenProcessPool:  # killed: out of memory
            return unknown


def measure_here(name: str, kind: str, workloads: Sequence[Workload]) -> list[int]:
    """What `peak_memory` returns, of this process; it must be a fresh one."""
    checkpoint, backend, device = Checkpoint.find(name), BACKENDS[kind], torch.device(workloads[0].device or "cpu")
    path = None if backend.file is None else checkpoint.file(backend.file)
    __import__(backend.package)
    before = _status("VmRSS")
    opened = backend.open(checkpoint, path or Path(), workloads[0])
    peaks = {}
    for number, workload in sorted(enumerate(workloads), key=lambda pair: pair[1].batch_size * pair[1].seq_len):
        opened.run(random_inputs(checkpoint, workload))
        of_device = device.type == "cuda"
        peaks[number] = torch.cuda.max_memory_allocated(device) if of_device else _status("VmHWM") - before
    return [peaks[number] for number in range(len(workloads))]


def _status(field: str) -> int:
    """Bytes in a field of Linux's /proc/self/status, such as VmRSS (now) and VmHWM (at the peak)."""
    (kilobytes,) = re.findall(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    return 1024 * int(kilobytes)
