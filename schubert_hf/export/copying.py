"""What an export needs beside it in a folder of its own: config, tokenizer, the settings of a sentence encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..encoders.kinds import MODULES, read
from ..run.output import TOKENIZER_FILES

SETTINGS = (
    "config.json",
    *TOKENIZER_FILES,
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)


def copy_settings(source: Path, target: Path) -> None:
    """Copies them; the weights, of the modules behind a transformer too, stay where they are."""
    modules = [f"{module['path']}/config.json" for module in read(str(source), MODULES) or [] if module["path"]]
    for pattern in (*SETTINGS, *modules):
        for path in source.glob(pattern):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
