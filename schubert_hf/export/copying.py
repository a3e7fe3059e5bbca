"""What an export needs beside it in a folder of its own: config, tokenizer, the settings of a sentence encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..encoders.kinds import MODULES, SETTINGS, TRANSFORMER, read
from ..run.output import TOKENIZER_FILES

FILES = ("config.json", *TOKENIZER_FILES, MODULES, SETTINGS, TRANSFORMER)


def copy_settings(source: Path, target: Path) -> None:
    """Copies them; the weights, of the modules behind a transformer too, stay where they are."""
    modules = [f"{module['path']}/config.json" for module in read(str(source), MODULES) or [] if module["path"]]
    for pattern in (*FILES, *modules):
        for path in source.glob(pattern):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
