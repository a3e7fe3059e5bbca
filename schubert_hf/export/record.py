"""What a folder knows of its exports: `exports.json`, beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..encoders.kinds import modules_of, transformer_folder
from ..run.provenance import sha256
from .errors import ExportError

RECORD = "exports.json"
WEIGHTS = "model*.safetensors"


def weights_of(folder: Path) -> str:
    """Identifies the weights that a folder's exports were made from."""
    inside = folder / transformer_folder(modules_of(str(folder)))
    return ",".join(sha256(path) for path in sorted(inside.glob(WEIGHTS)))


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


def current_exports(folder: Path) -> dict[str, dict[str, Any]]:
    """The same, for exports that are all there and of the folder's weights.

    Raises:
        ExportError: one is missing, or was made from other weights than the folder holds now.
    """
    exports = read_exports(folder)
    weights = weights_of(folder) if exports else ""
    for file, known in exports.items():
        missing = [name for name in known["files"] if not (folder / name).is_file()]
        if missing or known["weights"] != weights:
            what = f"lacks `{missing[0]}`" if missing else "was made from other weights than those beside it"
            raise ExportError(
                f"The export `{folder / file}` {what}. Run `schubert export` again, or remove it with {RECORD}."
            )
    return exports
