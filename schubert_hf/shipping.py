"""The two Python files that open a checkpoint anywhere, and the `auto_map` that names them.

Results have them from the start, published or not: whoever opens the folder need not know this package.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import PreTrainedModel

from .auto import auto_map
from .configuration_schubert import SchuBertConfig

SHIPPED = [Path(__file__).parent / name for name in ("configuration_schubert.py", "modeling_schubert.py")]


def opened_anywhere(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, which from now on is saved with the files: `save_pretrained` writes what its config names."""
    model.config.auto_map = auto_map()
    return model


def ship(folder: Path, config: Path | None = None) -> None:
    """Copies the files into a folder, and writes the whole `auto_map` into its config.json.

    Args:
        config: the config.json to start from; by default the folder's own.
    """
    for shipped in SHIPPED:
        shutil.copyfile(shipped, folder / shipped.name)
    content = json.loads((config or folder / "config.json").read_text(encoding="utf-8"))
    content["auto_map"] = auto_map()
    if (
        any(name.endswith("Classification") for name in content.get("architectures") or [])
        and "id2label" not in content
    ):
        # transformers leaves two unnamed labels out; text-embeddings-inference refuses a classifier without labels.
        names = SchuBertConfig().id2label
        content |= {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    (folder / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
