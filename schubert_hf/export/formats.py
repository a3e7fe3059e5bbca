"""The formats by name, behind one small interface: trace, quantize, save, open.

`transformers.exporters` does the work. It is experimental, so nothing that it makes is kept before it was run and
compared with PyTorch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import transformers
from torch import Tensor

from .batches import Batch
from .errors import ExportError
from .subject import Subject
from .to_executorch import ExecuTorch
from .to_onnx import Onnx
from .to_openvino import OpenVINO

# A saved export as a function: a batch in, outputs by name out.
Run = Callable[[Batch], dict[str, Tensor]]


class Format(Protocol):
    """One format. Files are named in the model's folder, as clients look for them."""

    @property
    def extra(self) -> str:
        """The extra of this package that installs what it imports."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What it imports."""

    @property
    def packages_for_int8(self) -> tuple[str, ...]:
        """What quantizing imports besides."""

    @property
    def file(self) -> str:
        """The export in float32."""

    @property
    def quantized(self) -> str | None:
        """The export in int8; None where there is none."""

    @property
    def method(self) -> str:
        """How int8 is made."""

    def trace(self, subject: Subject) -> Any:
        """The program of a subject, in float32; batch, choices and length are dynamic."""

    def quantize(self, program: Any, subject: Subject, calibration: Sequence[Batch]) -> Any:
        """The same in int8."""

    def save(self, program: Any, path: Path) -> None:
        """Writes a program to `path`, and beside it what the format keeps apart."""

    def open(self, path: Path, subject: Subject) -> Run:
        """Opens what `save` wrote, in the format's own runtime, on the CPU, in float32."""


FORMATS: dict[str, Format] = {"onnx": Onnx(), "openvino": OpenVINO(), "executorch": ExecuTorch()}


def find_format(name: str, *, int8: bool = False) -> Format:
    """A format by its name, all that it needs being installed.

    Raises:
        ExportError: there is none, or packages are missing.
    """
    if name not in FORMATS:
        raise ExportError(f"`format` is {name!r}; allowed is one of {', '.join(FORMATS)}.")
    found = FORMATS[name]
    if int8 and found.quantized is None:
        able = ", ".join(other for other, format in FORMATS.items() if format.quantized is not None)
        raise ExportError(f"The format {name!r} has no int8; {able} have. Leave `--int8` out, or take one of them.")
    install = f'Install: pip install "schubert-hf[{found.extra}]".'
    if importlib.util.find_spec("transformers.exporters") is None:
        raise ExportError(
            f"transformers {transformers.__version__} has no exporters; 5.23 is the first that has. {install}"
        )
    needed = (*found.packages, *(found.packages_for_int8 if int8 else ()))
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"The format {name!r} needs {', '.join(missing)}. {install}")
    return found
