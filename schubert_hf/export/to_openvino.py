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
        import openvino

        # On a CPU with bfloat16 units OpenVINO computes in bfloat16 unless it is told not to.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)

        def run(batch: Batch) -> dict[str, Tensor]:
            found = compiled({name: tensor.numpy() for name, tensor in batch.items()})
            return {port.any_name: torch.from_numpy(found[port]) for port in compiled.outputs}

        return run
