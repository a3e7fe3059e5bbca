"""What a folder knows of its exports: `exports.json`, beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..run.provenance import sha256
from .errors import ExportError

RECORD = "exports.json"
WEIGHTS = "model*.safetensors"
FOLDERS = ("onnx", "openvino", "executorch")


def weights_of(folder: Path) -> str:
    """Identifies the weights that a folder's exports were made from."""
    return ",".join(sha256(path) for path in sorted(folder.glob(WEIGHTS)))


def read_exports(folder: Path) -> dict[str, dict[str, Any]]:
    """File -> what is known of it; empty where nothing was exported.

    Raises:
        ExportError: the record cannot be read.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise ExportError(f"`{path}` cannot be read: {error}. Remove it, and export again.") from error
    return content
