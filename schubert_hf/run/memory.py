"""How much memory training needs, measured on a real example: a run that its device cannot hold ends before it starts.

An estimate counts what certainly stands in memory at one time: weights, gradients, AdamW's moments, and what autograd
saves for the backward pass. It leaves out what kernels need for a moment, fragmentation, what alphas save, and what
data-parallel training adds, so it is somewhat too low, never too high: a run that fits must not be refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from ..errors import SchuBertError

logger = logging.getLogger(__name__)
GIB = 2**30
AnyBatch = TypeVar("AnyBatch", bound=Mapping[str, Any])
CGROUP = Path("/sys/fs/cgroup")


class MemoryLimitError(SchuBertError):
    """A training run that needs more memory than its device has."""


@contextlib.contextmanager
def explained(examples: int) -> Iterator[None]:
    """Inside it a device that runs out of memory raises a `MemoryLimitError`, which says how to go on.

    Args:
        examples: of a micro-batch.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        why = ". ".join(" ".join(str(error).split()).split(". ")[:2]).removesuffix(".")
        less = (
            f"Give `--micro-batch-size` {examples // 2} or less, which changes no step"
            if examples > 1
            else "Give a smaller `--max-length`, or use a larger device"
        )
        raise MemoryLimitError(
            f"Out of memory with micro-batches of {examples} examples: {why or 'nothing is free'}. {less}; with "
            "`--resume` the run goes on from its last checkpoint. What else uses the device is shown by `nvidia-smi`."
        ) from error


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training needs, part by part."""

    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments of every trained parameter
    teacher: int = 0  # its weights
    fixed: int = 0  # saved for the backward pass, whatever the number of examples
    per_example: int = 0  # saved for the backward pass by each example of a micro-batch

    def total(self, examples: int, *, accumulates: bool) -> int:
        """The most that is certainly in memory at one time, with micro-batches of so many examples.

        Only where a step accumulates several micro-batches do gradients exist while activations are at their peak;
        otherwise the ones grow as the others are freed.
        """
        together = sum if accumulates else max
        activations = self.fixed + examples * self.per_example
        return self.weights + self.optimizer + self.teacher + together((self.gradients, activations))

    def largest(self, limit: int) -> int:
        """The largest micro-batch of several that fits into `limit` bytes; 0 if none does."""
        return max(0, (limit - self.total(0, accumulates=True)) // max(1, self.per_example))

    def describe(self, examples: int) -> str:
        """The parts with their sizes, for a micro-batch of so many examples."""
        parts = {**asdict(self), "activations": self.fixed + examples * self.per_example}
        del parts["fixed"], parts["per_example"]
        return ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size) + " GiB"


def check_memory(
    accelerator: Accelerator,
    objective: nn.Module,
    batch: dict[str, Tensor],
    *,
    batch_size: int,
    micro_batch_size: int | None = None,
    teacher: nn.Module | None = None,
    trains: bool = True,
) -> None:
    """Warns if training needs more memory than is free on the device.

    Only more than the device has at all is an error: what is in use now may be free when it is needed.

    Args:
        accelerator: knows device, processes and precision.
        objective: what will be trained, with its `count` of a batch; see `training.objective.Objective`.
        batch: examples of the run, padded to its length.
        batch_size: examples per step, over all processes.
        micro_batch_size: examples of one forward pass; by default all of a process's, as `accelerator` divides them.
        teacher: a model that `objective` uses and that is not among its submodules.
        trains: whether weights are trained at all.

    Raises:
        MemoryLimitError: training needs more than the device has; with the largest micro-batch that fits.
    """
    device = accelerator.device
    share = batch_size // accelerator.num_processes
    examples = min(micro_batch_size or -(-share // accelerator.gradient_accumulation_steps), share)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    free, total = device_memory(device, processes)
    estimate = estimate_training(accelerator, objective, batch, free=free, teacher=teacher, trains=trains)
    needed = estimate.total(examples, accumulates=examples < share)
    share_of = f" for each of {processes} processes" if processes > 1 and device.type == "cpu" else ""
    words = f"micro-batches of {examples} examples need about {needed / GIB:.2f} GiB to train"
    if needed > total:
        fitting = min(examples - 1, estimate.largest(total))
        way_out = (
            f"Give `--micro-batch-size` {fitting} or less: the step stays the same."
            if fitting
            else "Not even `--micro-batch-size` 1 fits: the model is too large for this device. Train a smaller one, "
            "or use a larger device."
        )
        raise MemoryLimitError(
            f"The run does not fit: {words} ({estimate.describe(examples)}), but `{device}` has {total / GIB:.2f} GiB"
            f"{share_of}. {way_out}"
        )
    if needed > free and accelerator.is_main_process:
        logger.warning(
            "The run may run out of memory: %s, and `%s` has %.2f of %.2f GiB free now%s.",
            *(words, device, free / GIB, total / GIB, share_of),
        )


def estimate_training(
    accelerator: Accelerator,
    objective: Any,
    batch: dict[str, Tensor],
    *,
    free: int,
    teacher: nn.Module | None = None,
    trains: bool = True,
) -> MemoryEstimate:
    """Measures one and two examples of a batch on the device; see `check_memory`.

    Nothing changes: neither random states nor the model's mode or place. Where an accelerator has no room (`free`
    bytes) even for that, activations count as 0.
    """
    device, modules = accelerator.device, [objective] if teacher is None else [objective, teacher]
    weights, taught = (
        sum(x.nbytes for x in module.parameters()) for module in (objective, nn.ModuleList(modules[1:]))
    )
    trained = sum(x.nbytes for x in objective.parameters() if x.requires_grad) if trains else 0
    one = two = 0
    if device.type == "cpu" or 2 * (weights + taught) < free:
        batches = _typical(objective, batch)
        with _borrowed(device, modules), accelerator.autocast():
            one, two = (saved_bytes(objective, send_to_device(examples, device)) for examples in batches)
    return MemoryEstimate(weights, trained, 2 * trained, taught, fixed=max(0, 2 * one - two), per_example=two - one)


def saved_bytes(objective: nn.Module, batch: dict[str, Tensor]) -> int:
    """Bytes that a forward pass saves for its backward pass, without weights and batch."""
    inputs = [value for value in batch.values() if isinstance(value, Tensor)]
    known = {x.untyped_storage().data_ptr() for x in (*objective.parameters(), *objective.buffers(), *inputs)}
    saved: dict[int, torch.UntypedStorage] = {}  # holds them, so that no address is used twice

    def pack(tensor: Tensor) -> None:  # a graph that got its own outputs back would never be freed
        storage = tensor.untyped_storage()
        saved.setdefault(storage.data_ptr(), storage)

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        objective(batch)
    return sum(storage.nbytes() for pointer, storage in saved.items() if pointer not in known)


def return_freed() -> None:
    """Gives freed memory back to the system where the C library, glibc's, would keep it for tensors to come.

    Plans that are tried one after the other leave gaps of every size between tensors that stay, which the next ones
    do not fit into: BERT-base's shape held twice what its tensors take.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def examples_in(batch: Mapping[str, Any]) -> int:
    """How many examples a batch has."""
    return len(next(x for x in batch.values() if isinstance(x, Tensor) and x.ndim))


def take(batch: AnyBatch, rows: slice | list[int]) -> AnyBatch:
    """Some examples of a batch. What is not one item per example, e.g. class weights of a collator, stays as it is."""
    size = examples_in(batch)
    is_rows = {name: isinstance(x, Tensor) and x.ndim and len(x) == size for name, x in batch.items()}
    return cast(AnyBatch, {name: x[rows] if is_rows[name] else x for name, x in batch.items()})


def _typical(objective: Any, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """One and two copies of the example whose count of items, e.g. of masked tokens, is nearest to the mean."""
    size = examples_in(batch)
    counts = [sum(objective.count(take(batch, [row])).values()) for row in range(size)]
    row = min(range(size), key=lambda row: abs(counts[row] - sum(counts) / size))
    return [take(batch, [row]), take(batch, [row, row])]


@contextlib.contextmanager
def _borrowed(device: torch.device, modules: list[nn.Module]) -> Iterator[None]:
    """Modules on a device, the first in training mode; afterwards all is as it was, random states included."""
    homes = [next(module.parameters()).device for module in modules]
    modes = {module: module.training for module in modules[0].modules()}
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            for module in modules:
                module.to(device)
            modules[0].train()
            yield
    finally:
        for module, home in zip(modules, homes, strict=True):
            module.to(home)
        for module, mode in modes.items():
            module.training = mode


def device_memory(device: torch.device, processes: int = 1) -> tuple[int, int]:
    """(free, total) bytes for one process.

    On an accelerator whose memory PyTorch knows, what it has already reserved counts as free. Anywhere else it is the
    machine's own memory without swap, within the limit of a container (cgroup v2), which the `processes` of the run
    on this machine share evenly.
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
