"""The results of a run on disk: a folder per target, each a model with its record, never written over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..run.checkpoint import save_model, write_json
from ..run.output import MARKER, PRUNING_RECORD, check_output_folder, result_files
from .result import PruningResult


def result_folders(output: Path | None, targets: Sequence[str | float]) -> list[Path]:
    """Where each target's result goes: the folder itself for one; for several, a folder in it named by the target.

    Raises:
        OutputFolderError: `output` already holds a model, or the last target's, or cannot be written.
    """
    if output is None:
        return []
    folders = [output / str(target).replace("%", "pct") for target in targets] if len(targets) > 1 else [output]
    check_output_folder(output)
    check_empty(folders[-1:])
    return folders


def check_empty(folders: Sequence[Path]) -> None:
    """Raises `OutputFolderError` where one of these folders already holds a model; makes none of them."""
    for folder in folders:
        if folder.exists():
            check_output_folder(folder)


def write_result(result: PruningResult) -> bool:
    """Writes a result into its folder; whether it was missing there."""
    folder = result.output_dir
    if folder is None or (folder / MARKER).exists():
        return False
    check_output_folder(folder)
    with result_files(folder) as files:
        save_model(files, result.model, result.tokenizer)
        write_json(files / PRUNING_RECORD, result.to_json())
    return True
