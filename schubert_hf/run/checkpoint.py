"""Folders that are whole or not there: written beside their place, flushed, and renamed.

A checkpoint is `model/` (config.json and model.safetensors), `optimizer.safetensors` and `state.json`. Only
safetensors and JSON are written and read; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import SchuBertError
from .progress import quiet

logger = logging.getLogger(__name__)
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
MODEL = "model"
ModelT = TypeVar("ModelT", bound=PreTrainedModel)


class CheckpointError(SchuBertError):
    """A checkpoint that is damaged, or belongs to another run."""


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into; it takes `target`'s place when the block ends without an error.

    Otherwise `target` is left as it was. A process that is killed in the block leaves a hidden folder beside it, which
    the next writer of the same `target` removes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside, replaced = target.with_name(f".{target.name}.writing"), target.with_name(f".{target.name}.replaced")
    if replaced.exists() and not target.exists():  # killed between the two renames below
        replaced.rename(target)
    for leftover in (beside, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        _flush(*beside.rglob("*"))
        if target.exists():
            target.rename(replaced)
        try:
            beside.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise
        _flush(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside `path` and renames it into place; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.writing")  # two processes never write the same one
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _flush(beside)
    beside.replace(path)


def save_model(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, **options: Any
) -> None:
    """Writes weights, config and tokenizer without a word; `options` go to `save_pretrained`."""
    with quiet():
        model.save_pretrained(folder, **options)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def save_checkpoint(
    target: Path,
    model: PreTrainedModel,
    *,
    state: dict[str, Any],
    optimizer: Mapping[str, Tensor] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep: int | None = None,
) -> None:
    """Writes a checkpoint.

    Args:
        target: its folder; those beside it sort by name, the newest last.
        model: its weights and config go to `MODEL`.
        state: any JSON.
        optimizer: the tensors of `TrainingLoop.state_tensors`.
        tokenizer: saved beside the weights.
        keep: how many checkpoints stay in `target`'s parent, this one included; None: all.

    Raises:
        CheckpointError: the disk refuses; what was there before is whole.
    """
    for torn in target.parent.glob(".*.writing"):
        shutil.rmtree(torn, ignore_errors=True)
    try:
        with atomic_folder(target) as folder:
            save_model(folder / MODEL, model, tokenizer)
            if optimizer:
                tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in optimizer.items()}
                save_file(tensors, folder / OPTIMIZER)
            write_json(folder / STATE, state)  # last: a folder with this file is whole
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The checkpoint `{target}` cannot be written: {error}. Earlier ones are whole: make room and resume."
        ) from error
    if keep is not None:
        for old in list_checkpoints(target.parent)[:-keep]:
            shutil.rmtree(old)


def list_checkpoints(parent: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return [folder for folder in _candidates(parent) if _damage(folder) is None]


def newest_checkpoint(parent: Path) -> Path | None:
    """The newest whole checkpoint in a folder, or None. Newer, damaged ones are reported and skipped."""
    for torn in sorted(parent.glob(".*.writing")):
        logger.warning("%s was being written when a run stopped: it is skipped.", torn.name)
    for folder in reversed(_candidates(parent)):
        if (damage := _damage(folder)) is None:
            return folder
        logger.warning("The checkpoint %s is damaged and skipped: %s", folder.name, damage)
    return None


def load_state(folder: Path) -> dict[str, Any]:
    """The JSON of a checkpoint; raises `CheckpointError` where the folder holds no whole one."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} holds no object")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"`{folder}` holds no whole checkpoint: {error}. Start again, or give another folder."
        ) from error
    return state


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any], place: Path) -> None:
    """Raises `CheckpointError`, which names every difference, where a run in `place` had other settings.

    Args:
        before: recorded ones, as JSON gave them back.
        now: those that must be the same; plain JSON.
    """
    settings = sorted(json.loads(json.dumps(now)).items())
    changes = [(name, before.get(name), value) for name, value in settings if before.get(name) != value]
    if changes:
        what = "; ".join(f"`{name}` was {old!r} and is {new!r}" for name, old, new in changes)
        raise CheckpointError(f"`{place}` belongs to another run: {what}. Give the same settings, or another folder.")


def load_model(folder: Path, like: ModelT) -> ModelT:
    """The model of a checkpoint, of the class, dtype and attention implementation of `like`, on the CPU."""
    with quiet():
        model: ModelT = type(like).from_pretrained(
            folder / MODEL, dtype=like.dtype, attn_implementation=like.config._attn_implementation
        )
    for parameter in model.parameters():  # read from a file they begin at any address; kernels round differently there
        parameter.data = parameter.data.clone()
    model.name_or_path = model.config._name_or_path = like.config._name_or_path
    return model


def load_optimizer(folder: Path) -> dict[str, Tensor]:
    """The optimizer tensors of a checkpoint, empty where none were saved; raises `CheckpointError` if damaged."""
    path = folder / OPTIMIZER
    try:
        return load_file(path) if path.exists() else {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"`{path}` cannot be read: {error}. Remove `{folder}` and resume from the one before it."
        ) from error


def _candidates(parent: Path) -> list[Path]:
    return sorted(folder for folder in parent.glob("[!.]*") if folder.is_dir())


def _damage(folder: Path) -> str | None:
    """Why a folder is no whole checkpoint; None if it is one."""
    weights = [*(folder / MODEL).glob("*.safetensors")]
    try:
        load_state(folder)
        for path in (*weights, *folder.glob(OPTIMIZER)):
            with safe_open(path, framework="pt"):  # compares the file's length with what its header says
                pass
    except (CheckpointError, OSError, SafetensorError) as error:
        return str(error)
    return None if weights else f"`{MODEL}` holds no weights."


def _flush(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
