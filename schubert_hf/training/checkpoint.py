"""Folders that are whole or not there: written beside their place, flushed, and renamed.

A checkpoint is `model/` (config.json and model.safetensors), `optimizer.safetensors` and `state.json`. Only safetensors and
JSON are written and read; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
MODEL = "model"


class CheckpointError(ValueError):
    """A checkpoint is torn, foreign, or belongs to a run with other settings."""


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into; it takes `target`'s place, in one rename, when the block ends without an error.

    Whatever stops the block leaves what stood at `target` untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.writing-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        _flush(beside)
        replaced = target.with_name(f".{target.name}.replaced-{os.getpid()}")
        if target.exists():
            os.replace(target, replaced)
        os.replace(beside, target)
        _flush_folder(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside `path` and renames it into place."""
    beside = path.with_name(f".{path.name}.writing-{os.getpid()}")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def save_checkpoint(
    target: Path,
    model: PreTrainedModel,
    *,
    state: dict[str, Any],
    optimizer: dict[str, Tensor] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep: int | None = None,
) -> None:
    """Writes a checkpoint.

    Args:
        target: its folder; those beside it sort by name, the newest last.
        state: any JSON.
        optimizer: the tensors of `TrainingLoop.state_tensors`.
        keep: how many checkpoints stay in `target`'s parent, this one included; None: all.
    """
    with atomic_folder(target) as folder:
        model.save_pretrained(folder / MODEL)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder / MODEL)
        if optimizer:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in optimizer.items()}, folder / OPTIMIZER)
        # Last: a folder with this file is whole.
        write_json(folder / STATE, state)
    if keep is not None:
        for old in list_checkpoints(target.parent)[:-keep]:
            shutil.rmtree(old)


def list_checkpoints(parent: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(state.parent for state in parent.glob(f"[!.]*/{STATE}"))


def newest_checkpoint(parent: Path) -> Path | None:
    """The newest whole checkpoint in a folder, or None."""
    return next(reversed(list_checkpoints(parent)), None)


def load_state(folder: Path) -> dict[str, Any]:
    """The JSON of a checkpoint.

    Raises:
        CheckpointError: the folder holds no whole checkpoint.
    """
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"`{folder}` holds no whole checkpoint: {error}. Begin anew or give another folder.") from error
    return state


def load_optimizer(folder: Path) -> dict[str, Tensor]:
    """The optimizer tensors of a checkpoint; empty where none were saved."""
    path = folder / OPTIMIZER
    return load_file(path) if path.exists() else {}


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
