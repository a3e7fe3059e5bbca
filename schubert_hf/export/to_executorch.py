"""ExecuTorch, for phones and other small machines: XNNPACK on their CPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .batches import Batch, traced_batch
from .subject import Subject
from .tracing import hushed, trace

LARGEST_BATCH = 16  # memory for the largest batch is planned ahead


@dataclass(frozen=True)
class ExecuTorch:
    """See `Format`."""

    extra: str = "executorch"
    packages: tuple[str, ...] = ("executorch",)
    packages_for_int8: tuple[str, ...] = ()
    file: str = "executorch/model.pte"
    quantized: None = None
    method: str = ""

    def trace(self, subject: Subject) -> Any:
        from transformers.exporters import ExecutorchConfig, ExecutorchExporter

        return trace(ExecutorchExporter, ExecutorchConfig, subject, largest_batch=LARGEST_BATCH)

    def quantize(self, program: Any, subject: Subject, calibration: Sequence[Batch]) -> Any:
        raise NotImplementedError

    def save(self, program: Any, path: Path) -> None:
        from transformers.exporters import ExecutorchExporter

        with hushed():
            ExecutorchExporter.save_program(program, path)

    def open(self, path: Path, subject: Subject) -> Callable[[Batch], dict[str, Tensor]]:
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(str(path)).load_method("forward")
        names = list(subject.function(**traced_batch(subject)))  # a program knows its inputs and outputs by place

        def run(batch: Batch) -> dict[str, Tensor]:
            found = method.execute([batch[name] for name in subject.inputs])
            return dict(zip(names, (output.clone() for output in found), strict=True))

        return run
