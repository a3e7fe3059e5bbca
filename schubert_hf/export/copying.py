"""What an export needs beside it in a folder of its own: config, tokenizer, the settings of a sentence encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..encoders.kinds import MODULES, SETTINGS, modules_of, transformer_folder
from ..run.output import TOKENIZER_FILES

# The last one: settings of the transformer, which old sentence encoders name after its family.
FILES = ("config.json", *TOKENIZER_FILES, "sentence_*_config.json")


def copy_settings(source: Path, target: Path) -> None:
    """Copies them; the weights, of the modules behind a transformer too, stay where they are.

    What lies beside a transformer comes to the root, where clients look for it; old sentence encoders have it in a
    folder of its own.
    """
    modules = modules_of(str(source))
    inside = transformer_folder(modules)
    behind = [f"{module['path']}/config.json" for module in modules if module["path"] not in ("", inside)]
    for origin, patterns in ((source / inside, FILES), (source, (MODULES, SETTINGS, *behind))):
        for path in (path for pattern in patterns for path in origin.glob(pattern)):
            copy = target / path.relative_to(origin)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    if inside:
        modules[0]["path"] = ""
        (target / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
