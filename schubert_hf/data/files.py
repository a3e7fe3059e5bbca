"""Local files as a dataset."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import load_dataset


def load_files(reader: str, files: Sequence[str], **options: Any) -> Any:
    """The rows of files; `options`: of `load_dataset`. Raises `ValueError` for a path that it cannot read.

    `datasets` takes `[`, `*` and `?` in a path for a pattern, and would read other files, or none; also in the working
    folder, which it puts before a relative path. Behind a pattern it knows no `..`.
    """
    paths = [Path(file).parent.resolve() / Path(file).name for file in files]  # a link keeps its name, with the suffix
    if any("::" in str(path) for path in paths):
        raise ValueError("its path has a `::`, which `datasets` takes for two addresses. Rename the file or folder.")
    return load_dataset(reader, data_files=[glob.escape(str(path)) for path in paths], split="train", **options)
