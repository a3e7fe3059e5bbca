"""OpenVINO, for Intel's CPUs and GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .batches import Batch, traced_batch
from .subject import Subject
from .tracing import hushed, trace


@dataclass(frozen=True)
class OpenVINO:
    """See `Format`."""

    extra: str = "export"
    packages: tuple[str, ...] = ("openvino",)
    packages_for_int8: tuple[str, ...] = ("nncf",)
    file: str = "openvino/openvino_model.xml"
    quantized: str = "openvino/openvino_model_qint8_quantized.xml"
    method: str = "weights and activations, calibrated on text (NNCF, static)"

    def trace(self, subject: Subject) -> Any:
        from transformers.exporters import OpenVINOConfig, OpenVINOExporter

        return trace(OpenVINOExporter, OpenVINOConfig, subject)

    def quantize(self, program: Any, subject: Subject, calibration: Sequence[Batch]) -> Any:
        from transformers.exporters import NNCFOpenVINOQuantizer
        from transformers.exporters.configs import ExportFormat

        with hushed():
            quantizer = NNCFOpenVINOQuantizer(calibration_dataset=list(calibration))
            return quantizer.quantize(program, traced_batch(subject), ExportFormat.OPENVINO)

    def save(self, program: Any, path: Path) -> None:
        import openvino

        openvino.save_model(program, str(path), compress_to_fp16=False)

    def open(self, path: Path, subject: Subject) -> Callable[[Batch], dict[str, Tensor]]:
        compiled = open_compiled(path)

        def run(batch: Batch) -> dict[str, Tensor]:
            found = compiled({name: tensor.numpy() for name, tensor in batch.items()})
            return {port.any_name: torch.from_numpy(found[port]) for port in compiled.outputs}

        return run


def open_compiled(path: Path, *, float32: bool = True) -> Any:
    """A file in OpenVINO, on the CPU with as many threads as PyTorch has, for one batch at a time.

    Args:
        float32: compute in float32, and not in bfloat16 where the processor can.
    """
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_PRECISION_HINT": "f32"} if float32 else {}
    return openvino.Core().compile_model(str(path), "CPU", settings)
