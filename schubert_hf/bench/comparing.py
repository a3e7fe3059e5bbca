"""Checkpoints and backends that take turns: milliseconds, megabytes, and what is known of their quality."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ..latency.timing import Clock, Workload, quartiles, take_turns
from ..run.progress import quiet
from ..run.provenance import machine, versions
from .backends import BACKENDS, Backend, Inputs, Opened, random_inputs
from .checkpoint import Checkpoint, labels
from .errors import BenchError
from .memory import peak_memory
from .qualities import Quality, read_qualities

PACKAGES = ("torch", "transformers", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Measurement:
    """One checkpoint on one backend with one workload.

    Attributes:
        milliseconds: the three quartiles of the timed passes, the lower one first.
        runs: how many they are.
        weights: bytes.
        peak: bytes that a process needs at most to open the model and run it once, beyond what it needs before; None
            where that is not known.
    """

    model: str
    backend: str
    batch_size: int
    seq_len: int
    milliseconds: tuple[float, float, float]
    runs: int
    weights: int
    peak: int | None = None

    @property
    def median(self) -> float:
        return self.milliseconds[1]


@dataclass(frozen=True)
class Comparison:
    """All measurements, workload by workload, and in each the models in the order in which they were given.

    Attributes:
        quality: a figure that most of the models' records have; None if there is none.
        conditions: how and where it was measured, as JSON; no host name and no path.
    """

    measurements: tuple[Measurement, ...]
    quality: Quality | None
    conditions: dict[str, Any]

    @property
    def workloads(self) -> list[tuple[int, int]]:
        """Batch sizes and lengths."""
        return list(dict.fromkeys((one.batch_size, one.seq_len) for one in self.measurements))

    def of(self, workload: tuple[int, int]) -> list[Measurement]:
        return [one for one in self.measurements if (one.batch_size, one.seq_len) == workload]

    def to_json(self) -> dict[str, Any]:
        quality = None if self.quality is None else asdict(self.quality)
        return {"measurements": [asdict(one) for one in self.measurements], "quality": quality, **self.conditions}


@dataclass(frozen=True)
class Candidate:
    """A checkpoint on a backend that can run it."""

    label: str
    checkpoint: Checkpoint
    kind: str
    path: Path

    @property
    def backend(self) -> Backend:
        return BACKENDS[self.kind]

    def open(self, workload: Workload) -> Opened:
        """Raises `BenchError` where the backend refuses the checkpoint."""
        try:
            with quiet():
                return self.backend.open(self.checkpoint, self.path, workload)
        except (RuntimeError, OSError) as error:  # onnxruntime's and openvino's errors are RuntimeErrors
            raise BenchError(self._failed(error)) from error

    def warm(self, opened: Opened, inputs: Inputs) -> None:
        """The first pass, in which a model is compiled; raises `BenchError` where that fails."""
        try:
            opened.run(inputs)
        except (RuntimeError, ValueError) as error:
            raise BenchError(self._failed(error)) from error

    def _failed(self, error: Exception) -> str:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"`{self.label}` does not run on {self.kind}: {first} Leave `{self.kind}` out of `--backends`."


def compare(
    models: Sequence[str],
    *,
    backends: Sequence[str] | None = None,
    batch_sizes: Sequence[int] = (1,),
    seq_lens: Sequence[int] = (128,),
    device: str | None = "cpu",
    dtype: torch.dtype = torch.float32,
    rounds: int = 20,
    seconds: float = 20.0,
    memory: bool = True,
    progress: bool = False,
    clock: Clock = time.perf_counter,
) -> Comparison:
    """Times checkpoints side by side. All of one batch size and length take turns, see `take_turns`.

    A forward pass is that of the class that was saved, with its head, on random tokens without padding.

    Args:
        models: folders or names on the Hub, dense or pruned, of any family that transformers knows.
        backends: keys of `BACKENDS`; a checkpoint without the file of one is left out there. None: PyTorch, and every
            exported file that is there and whose package is installed.
        batch_sizes, seq_lens: each with each.
        device, dtype: of PyTorch; exported files run on the CPU, as they are.
        rounds, seconds, clock: see `take_turns`, for each batch size and length.
        memory: measure the peak, too, in a process for each checkpoint and backend.

    Raises:
        BenchError: a model cannot be opened, a backend is unknown, not installed or has nothing to run, or a workload
            does not fit. All but what a backend itself refuses is found before anything is timed.
        LatencyError: a batch size or length is below 1.
    """
    workloads = [Workload(size, length, device, dtype) for size, length in product(batch_sizes, seq_lens)]
    if not models or not workloads:
        raise BenchError("There is nothing to time. Give at least one model, batch size and length.")
    if rounds < 1:
        raise BenchError(f"`rounds` is {rounds}; allowed is a whole number of at least 1.")
    candidates = _candidates([Checkpoint.find(name) for name in models], backends, workloads[0])
    batches = [[random_inputs(one.checkpoint, workload) for one in candidates] for workload in workloads]
    measurements: list[Measurement] = []
    for workload, inputs in zip(workloads, batches, strict=True):
        torch.compiler.reset()  # only so many graphs of one function are kept
        opened = [one.open(workload) for one in candidates]
        for one, model, batch in zip(candidates, opened, inputs, strict=True):
            one.warm(model, batch)
        passes = [partial(model.run, batch) for model, batch in zip(opened, inputs, strict=True)]
        times = take_turns(passes, rounds=rounds, seconds=seconds, progress=progress, clock=clock)
        weights = [model.weights for model in opened]
        del opened, passes
        for one, size, taken in zip(candidates, weights, times, strict=True):
            low, median, high = quartiles(taken)
            where = (one.label, one.kind, workload.batch_size, workload.seq_len)
            measurements.append(Measurement(*where, (low, median, high), len(taken), size))
    if memory:
        peaks = [peak_memory(one.checkpoint.name, one.kind, workloads) for one in candidates]
        by_workload = [peak for same in zip(*peaks, strict=True) for peak in same]
        measurements = [replace(one, peak=peak) for one, peak in zip(measurements, by_workload, strict=True)]
    return Comparison(tuple(measurements), read_qualities(models), _conditions(workloads[0], clock))


def _candidates(checkpoints: list[Checkpoint], asked: Sequence[str] | None, workload: Workload) -> list[Candidate]:
    for kind in asked or ():
        if kind not in BACKENDS:
            raise BenchError(f"`backends` has {kind!r}. Allowed are {', '.join(BACKENDS)}.")
        if not BACKENDS[kind].installed:
            package = BACKENDS[kind].package
            raise BenchError(f"`{kind}` needs the package {package}. Install it: pip install {package}")
    on_cpu = torch.device(workload.device or "cpu").type == "cpu"
    files = [kind for kind, backend in BACKENDS.items() if backend.file is not None]
    if not on_cpu and (wrong := [kind for kind in asked or () if kind in files]):
        raise BenchError(f"`{wrong[0]}` runs on the CPU, not on `{workload.device}`. Leave it or `--device` out.")
    kinds = asked or ["torch", *(kind for kind in files if on_cpu and BACKENDS[kind].installed)]
    found = []
    for label, checkpoint in zip(labels([one.name for one in checkpoints]), checkpoints, strict=True):
        for kind in dict.fromkeys(kinds):
            file = BACKENDS[kind].file
            path = Path() if file is None else checkpoint.file(file)
            if path is not None:
                found.append(Candidate(label, checkpoint, kind, path))
    for kind in asked or ():
        if all(one.kind != kind for one in found):
            raise BenchError(
                f"None of the models has a file for `{kind}`: {BACKENDS[kind].file}. Write it with `schubert export`."
            )
    return found


def _conditions(workload: Workload, clock: Clock) -> dict[str, Any]:
    return {
        "processor_time": clock is time.process_time,
        "dtype": str(workload.dtype).removeprefix("torch."),
        "device": str(workload.device),
        "machine": machine(),
        "versions": versions(PACKAGES),
    }
