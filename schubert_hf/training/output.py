"""Folders that users name for a result: never written over, never half written."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from .checkpoint import atomic_folder

# What shows that a folder holds a model. Written last, so a folder with it is whole.
MARKER = "config.json"


class OutputFolderError(ValueError):
    """The folder for the result already holds one, or cannot be written."""


def check_output_folder(output: Path) -> None:
    """Raises `OutputFolderError` where a result cannot be written, before any work is done."""
    if (output / MARKER).exists():
        raise OutputFolderError(f"`{output}` already holds a model. Give another output folder, or remove this one.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFolderError(f"`{output}` cannot be written: {error.strerror}. Give another output folder.") from error


@contextlib.contextmanager
def result_files(output: Path) -> Iterator[Path]:
    """A folder to write a result's files into; they move to `output`, the marker last, when the block ends without an error."""
    finished = output / ".finished"
    with atomic_folder(finished) as folder:
        yield folder
    for path in sorted(finished.iterdir(), key=lambda path: path.name == MARKER):
        path.replace(output / path.name)
    shutil.rmtree(finished)
