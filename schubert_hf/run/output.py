"""Folders that users name for a result: never written over, never half written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import SchuBertError
from .checkpoint import atomic_folder

MARKER = "config.json"  # written last: a folder with it holds a whole model
LOCK = ".lock"  # of the run that writes to the folder
# Of the run that made the model.
PRUNING_RECORD, TRIMMING_RECORD, FINETUNING_RECORD = "pruning.json", "trimming.json", "finetuning.json"
# A tokenizer as transformers and sentence-transformers read it, in all its forms.
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",  # of SentencePiece
)


class OutputFolderError(SchuBertError):
    """The folder for the result already holds one, or cannot be written."""


def check_output_folder(output: Path) -> None:
    """Raises `OutputFolderError` where a result cannot be written, before any work is done."""
    if (output / MARKER).exists():
        raise OutputFolderError(f"`{output}` already holds a model. Give another output folder, or remove this one.")
    try:  # without making it, so that a run that fails early leaves nothing
        place = next(path for path in (output, *output.parents) if path.exists())
        reason = None if os.access(place, os.W_OK | os.X_OK) else "no permission"
        if not place.is_dir():
            reason = f"`{place}` is a file"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise OutputFolderError(f"`{output}` cannot be written: {reason}. Give another output folder.")


@contextlib.contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Within the block no other run writes to a folder; the end of the process, however it ends, ends that, too.

    Raises:
        OutputFolderError: another run does, or the folder cannot be written.
    """
    lock = FileLock(output / LOCK)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputFolderError(
            f"Another run writes to `{output}`. Wait until it has ended, or give another output folder."
        ) from error
    except NotImplementedError:  # a file system without locks
        pass
    except OSError as error:
        raise OutputFolderError(
            f"`{output}` cannot be written: {error.strerror}. Make room, or give another output folder."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # before another run can have it
            Path(lock.lock_file).unlink()
        lock.release()


@contextlib.contextmanager
def result_files(output: Path) -> Iterator[Path]:
    """A folder to write a result's files into; if the block ends without error they move to `output`, the marker last.

    Raises:
        OutputFolderError: the disk refuses; `output` holds no model then.
    """
    finished = output / ".finished"
    try:
        with atomic_folder(finished) as folder:
            yield folder
        for path in sorted(finished.iterdir(), key=lambda path: path.name == MARKER):
            if path.is_dir() and (output / path.name).is_dir():  # of a run that was killed in between
                shutil.rmtree(output / path.name)
            path.replace(output / path.name)
        shutil.rmtree(finished)
    except (OSError, SafetensorError) as error:
        raise OutputFolderError(
            f"The result cannot be written to `{output}`: {error}. Make room and resume."
        ) from error


def halved(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights in float16 for `save_pretrained(state_dict=...)`, tied ones still tied.

    The config that is saved with them keeps the model's own dtype, which is what they are loaded as.
    """
    halves: dict[int, Tensor] = {}
    tensors = model.state_dict(keep_vars=True)
    return {name: halves.setdefault(id(tensor), tensor.detach().half()) for name, tensor in tensors.items()}
