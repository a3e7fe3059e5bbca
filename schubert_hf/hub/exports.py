"""What a page says of a model's exports: how large, how close to PyTorch, and how to run them."""

from __future__ import annotations

from typing import Any

from ..export.to_onnx import Onnx
from ..export.to_openvino import OpenVINO
from ..heads import NEXT_SENTENCE_OUTPUT
from .tables import TERMS, Table

# The model's task -> transformers.js's, which has none for other heads.
BROWSER_TASKS = {
    "sentence-similarity": "feature-extraction",
    **{task: task for task in ("feature-extraction", "fill-mask", "text-classification", "token-classification")},
    "question-answering": "question-answering",
}
# Outputs as users call them; figures of embeddings have their own names.
NAMES = {**TERMS, NEXT_SENTENCE_OUTPUT: TERMS["nsp"]}


def export_table(exports: dict[str, Any]) -> Table:
    """A row per file."""
    rows = []
    for file, known in exports.items():
        check = known["check"]
        if check is not None:
            close = f"differs by {check['difference']:.1g} of {check['largest']:.3g}"
        else:
            figures = known["quality"].items()
            close = ", ".join(f"{NAMES.get(name, name.replace('_', ' '))}: {value:.3f}" for name, value in figures)
        rows.append([f"`{file}`", f"{known['megabytes']:.1f}&nbsp;MB", "int8" if check is None else "float32", close])
    return Table(["file", "size", "weights", "next to float32 in PyTorch"], rows)


def usage(exports: dict[str, Any], pipeline_tag: str | None) -> dict[str, Any]:
    """What the template asks.

    Returns:
        `onnx`, `openvino`, `int8`: whether there are such files; `task` and `pooling` for transformers.js, None where
        it has none; `pooled`: whether the pooling is inside; `batches` and `texts` that were compared, and
        whether by `embeddings`.
    """
    onnx, every = exports.get(Onnx.file), exports.values()
    pooling = "mean" if pipeline_tag == "feature-extraction" else onnx and onnx["pooling"]
    task = BROWSER_TASKS.get(pipeline_tag or "")
    return {
        "onnx": onnx is not None,
        "openvino": OpenVINO.file in exports,
        "int8": Onnx.quantized in exports,
        "task": task if pooling or task != "feature-extraction" else None,
        "pooling": pooling,
        "pooled": onnx is not None and "sentence_embedding" in onnx["outputs"],
        "batches": next((known["check"]["batches"] for known in every if known["check"]), None),
        "embeddings": any("cosine" in (known["quality"] or ()) for known in every),
        "texts": next((known["texts"] for known in every if known["texts"]), None),
    }
