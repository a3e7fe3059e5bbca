"""`schubert export`: a model as ONNX, OpenVINO or ExecuTorch, in float32 and int8."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..cli import positional
from ..training.loop_config import option


@dataclass
class Export:
    """Export a model to ONNX, OpenVINO or ExecuTorch, for servers, browsers and other languages.

        schubert export small --format onnx --int8 --text corpus.txt

    Batch and length are dynamic. The export is run on 20 batches of other shapes and is kept only where it computes
    what PyTorch computes; the page in the folder then shows it. It needs the extra `export`, or `executorch`:
    `pip install "schubert-hf[export]"`.
    """

    folder: str = positional("Folder of a model, of a sentence encoder or of a cross-encoder.")
    format: str = option("onnx", "onnx, openvino or executorch.")
    int8: bool = option(False, "Make a quantized export, too; needs --text.")
    text: str | None = option(
        None, "What int8 is calibrated and judged on: a text file, a folder, or a dataset on the Hub."
    )
    pooled: bool = option(False, "Put a sentence encoder's pooling, and what stands behind it, into the graph.")
    output: str | None = option(None, "Folder to write to, with config and tokenizer. Default: the model's own.")

    usage: ClassVar[str] = "schubert export FOLDER [--format FORMAT] [--int8 --text TEXT] [--output FOLDER]"

    def run(self) -> None:
        run(self.folder, self.format, int8=self.int8, text=self.text, pooled=self.pooled, output=self.output)


def run(folder: str, format: str, **settings: Any) -> None:
    """Exports a model, prints what was made, and shows it on the folder's page if that was rendered from its data."""
    from ..export import export
    from ..hub.writing import README, update_page

    for one in export(folder, format, **settings):
        sys.stdout.write(describe(one))
    written = Path(settings.get("output") or folder)
    if update_page(written):
        sys.stdout.write(f"{written / README} shows how to use them.\n")


def describe(one: Any) -> str:
    """Two lines about an export: what it is, and how close it is to PyTorch."""
    head = f"{one.file}: {one.megabytes:.1f} MB, {', '.join(one.inputs)} -> {', '.join(one.outputs)}\n"
    if one.check is None:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in one.quality.items())
        return f"{head}  int8: {one.method}\n  next to float32, on {one.texts} texts: {figures}\n"
    return (
        f"{head}  largest difference from PyTorch on {one.check.batches} batches: {one.check.difference:.1e} "
        f"(outputs up to {one.check.largest:.3g})\n"
    )
