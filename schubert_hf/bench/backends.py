"""What runs a checkpoint: PyTorch, compiled or not, ONNX Runtime and OpenVINO.

A backend opens a checkpoint as a function of batch size and length that gives a `Runner`. To add one is to add a row.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..export.to_onnx import Onnx, open_session
from ..export.to_openvino import OpenVINO, open_compiled
from ..latency.timing import Workload
from .checkpoint import Checkpoint
from .errors import BenchError

Inputs = dict[str, Tensor]
Runner = Callable[[Inputs], Any]  # computes to the end; what it returns is of no interest
Open = Callable[[Checkpoint, Path, Workload], "Opened"]


@dataclass(frozen=True)
class Opened:
    """A model that is ready to run.

    Attributes:
        run: computes once, to the end.
        weights: bytes of the weights.
    """

    run: Runner
    weights: int


@dataclass(frozen=True)
class Backend:
    """
    Attributes:
        open: opens a checkpoint.
        package: what must be installed.
        file: of the checkpoint; None: its safetensors.
    """

    open: Open
    package: str
    file: str | None = None

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


def random_inputs(checkpoint: Checkpoint, workload: Workload) -> Inputs:
    """Random tokens without padding: `input_ids`, `attention_mask` and `token_type_ids`, each (batch, seq).

    For a multiple-choice head they are (1, batch, seq): the sequences are the choices of one question.

    Raises:
        BenchError: the model has fewer positions.
    """
    positions = checkpoint.positions
    if positions is not None and workload.seq_len > positions:
        raise BenchError(
            f"`seq_len` is {workload.seq_len}, but `{checkpoint.name}` has {positions} positions. Give at most that."
        )
    shape: tuple[int, ...] = (workload.batch_size, workload.seq_len)
    if checkpoint.class_name.endswith("ForMultipleChoice"):
        shape = (1, *shape)
    generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay where they are
    tokens = torch.randint(checkpoint.config.vocab_size, shape, generator=generator).to(workload.device)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "token_type_ids": torch.zeros_like(tokens)}


def _torch(checkpoint: Checkpoint, _: Path, workload: Workload, compiled: bool = False) -> Opened:
    model = checkpoint.load(torch.device(workload.device or "cpu"), workload.dtype)
    weights = sum(x.nbytes for x in {*model.parameters(), *model.buffers()})
    # A graph of its own for each workload; where there can be none that is an error, and not a slow uncompiled run.
    forward: Any = torch.compile(model, dynamic=False, fullgraph=True) if compiled else model

    @torch.inference_mode()
    def run(inputs: Inputs) -> None:
        forward(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        if inputs["input_ids"].device.type != "cpu":
            torch.accelerator.synchronize(inputs["input_ids"].device)

    return Opened(run, weights)


def _onnx(checkpoint: Checkpoint, path: Path, workload: Workload) -> Opened:
    session = open_session(path)
    names = {one.name for one in session.get_inputs()}
    _check_inputs(checkpoint, path, names)

    def run(inputs: Inputs) -> None:
        session.run(None, {name: x.numpy() for name, x in inputs.items() if name in names})

    return Opened(run, _bytes(path))


def _openvino(checkpoint: Checkpoint, path: Path, workload: Workload) -> Opened:
    request = open_compiled(path, float32=workload.dtype == torch.float32).create_infer_request()
    names = {name for one in request.model_inputs for name in one.names}
    _check_inputs(checkpoint, path, names)

    def run(inputs: Inputs) -> None:
        request.infer({name: x.numpy() for name, x in inputs.items() if name in names})

    return Opened(run, _bytes(path))


BACKENDS: dict[str, Backend] = {
    "torch": Backend(_torch, "torch"),
    "compiled": Backend(partial(_torch, compiled=True), "torch"),
    "onnx": Backend(_onnx, "onnxruntime", Onnx.file),
    "onnx-int8": Backend(_onnx, "onnxruntime", Onnx.quantized),
    "openvino": Backend(_openvino, "openvino", OpenVINO.file),
    "openvino-int8": Backend(_openvino, "openvino", OpenVINO.quantized),
}


def _check_inputs(checkpoint: Checkpoint, path: Path, names: set[str]) -> None:
    known = {"input_ids", "attention_mask", "token_type_ids"}
    if not names <= known:
        raise BenchError(
            f"`{checkpoint.name}`: `{path.name}` reads {', '.join(sorted(names - known))}. Allowed are "
            f"{', '.join(sorted(known))}. Export it again with `schubert export`."
        )


def _bytes(path: Path) -> int:
    """Of a file and of those beside it that hold its weights."""
    stem = path.stem
    return sum(
        one.stat().st_size
        for one in path.parent.iterdir()
        if one == path or one.name.startswith(f"{path.name}") or one.name == f"{stem}.bin"
    )
