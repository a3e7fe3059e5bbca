"""ONNX, run by ONNX Runtime: for servers, browsers and other languages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .batches import Batch, traced_batch
from .subject import Subject
from .tracing import hushed, trace

SIDECAR_FROM = int(1.5 * 2**30)  # bytes of weights; protobuf ends at 2 GB


@dataclass(frozen=True)
class Onnx:
    """See `Format`."""

    extra: str = "export"
    packages: tuple[str, ...] = ("onnx", "onnxscript", "onnxruntime")
    packages_for_int8: tuple[str, ...] = ()
    file: str = "onnx/model.onnx"
    quantized: str = "onnx/model_quantized.onnx"
    method: str = "weights per channel, activations as they come (ONNX Runtime, dynamic)"

    def trace(self, subject: Subject) -> Any:
        from transformers.exporters import OnnxConfig, OnnxExporter

        program = trace(OnnxExporter, OnnxConfig, subject)
        _tidy(program)
        return program

    def quantize(self, program: Any, subject: Subject, calibration: Sequence[Batch]) -> Any:
        from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer
        from transformers.exporters.configs import ExportFormat

        quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))
        with hushed():
            return quantizer.quantize(program, traced_batch(subject), ExportFormat.ONNX)

    def save(self, program: Any, path: Path) -> None:
        import onnx_ir

        constants = [value.const_value for value in program.graph.initializers.values()]
        weights = sum(constant.nbytes for constant in constants if constant is not None)
        # The name under which Optimum, transformers.js and text-embeddings-inference look for it.
        beside = f"{path.name}_data" if weights > SIDECAR_FROM else None
        onnx_ir.save(program, str(path), external_data=beside)

    def open(self, path: Path, subject: Subject) -> Callable[[Batch], dict[str, Tensor]]:
        session = open_session(path)
        names = [output.name for output in session.get_outputs()]

        def run(batch: Batch) -> dict[str, Tensor]:
            found = session.run(names, {name: tensor.numpy() for name, tensor in batch.items()})
            return dict(zip(names, map(torch.from_numpy, found), strict=True))

        return run


def open_session(path: Path) -> Any:
    """A file in ONNX Runtime, on the CPU with as many threads as PyTorch has; only errors are logged."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _tidy(program: Any) -> None:
    """Removes the stack trace of every node, which holds paths of this machine, and gives the dynamic axes names."""
    axes = ("batch_size", "sequence_length")
    dimensions = program.graph.inputs[0].shape
    names = dict(
        zip(map(str, dimensions), axes if len(dimensions) == 2 else (axes[0], "choices", axes[1]), strict=True)
    )
    symbols = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in names))
    values = set(program.graph.inputs)
    for node in program.graph.all_nodes():
        node.metadata_props.clear()
        values.update(node.outputs)
    for value in values:
        value.metadata_props.clear()
        for place, dimension in enumerate(value.shape or ()):
            if not isinstance(dimension, int) and dimension.value is not None:
                value.shape[place] = symbols.sub(lambda found: names[found[0]], str(dimension.value))
