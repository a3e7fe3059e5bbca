"""A checkpoint that is compared: a folder or a name on the Hub, of any family that transformers knows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from ..auto import MODELS
from ..configuration_schubert import SchuBertConfig
from ..conversion import why_not_opened
from ..encoders.kinds import modules_of, transformer_folder
from ..families import FAMILIES
from ..hub.errors import FAILURES
from ..run.progress import quiet
from .errors import BenchError

_OURS = {model.__name__: model for model in MODELS.values()}


@dataclass(frozen=True)
class Checkpoint:
    """Where a model is, and what a batch for it may be.

    Attributes:
        name: a folder or a name on the Hub, as the user gave it.
        config: of the transformer; in a sentence encoder that is its first module.
        subfolder: of the checkpoint that holds the transformer.
    """

    name: str
    config: PreTrainedConfig
    subfolder: str = ""

    @classmethod
    def find(cls, name: str) -> Checkpoint:
        """Reads the config alone.

        Raises:
            BenchError: there is no model, or transformers does not know its type.
        """
        subfolder = transformer_folder(modules_of(name)) if _is_legal(name) else ""
        try:
            config = AutoConfig.from_pretrained(name, subfolder=subfolder)
        except (OSError, ValueError) as error:
            raise BenchError(f"`{name}` cannot be opened: {why_not_opened(name, error)}") from error
        return cls(name, config, subfolder)

    @property
    def positions(self) -> int | None:
        """Tokens that fit into one sequence; None if there is no limit."""
        if self.config.model_type in FAMILIES:  # RoBERTa counts from behind its padding
            return int(SchuBertConfig.from_dict(self.config.to_dict()).max_position_embeddings)
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def class_name(self) -> str:
        """What opens it: the class that was saved, with its head."""
        return str((self.config.architectures or ["AutoModel"])[0])

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The model in eval mode, in the class that it was saved as.

        Raises:
            BenchError: there is no such class, or the weights cannot be read.
        """
        loader: Any = _OURS.get(self.class_name, getattr(transformers, self.class_name, None))
        if loader is None:
            raise BenchError(f"`{self.name}` was saved as a {self.class_name}, which transformers does not have.")
        try:
            with quiet():
                model: nn.Module = loader.from_pretrained(
                    self.name, subfolder=self.subfolder, dtype=dtype, use_safetensors=True
                )
        except SafetensorError as error:
            raise BenchError(f"`{self.name}` cannot be loaded: {why_not_opened(self.name, error)}") from error
        except OSError as error:
            raise BenchError(
                f"`{self.name}` cannot be loaded: {' '.join(str(error).split()).partition('. ')[0]}. Only safetensors "
                "are read; `schubert export` writes the other files that can be timed."
            ) from error
        return model.eval().to(device)

    def file(self, path: str) -> Path | None:
        """A file of the checkpoint, with those beside it whose names begin alike; None if there is none."""
        stem = path.rpartition(".")[0]
        if Path(self.name).exists():
            folder = Path(self.name)
        else:
            try:
                folder = Path(snapshot_download(self.name, allow_patterns=[path, f"{path}*", f"{stem}.bin"]))
            except (*FAILURES, OSError):
                return None
        return folder / path if (folder / path).is_file() else None


def labels(names: Sequence[str]) -> list[str]:
    """What models are called in tables: no private path is shown, and no two are alike."""
    short = [Path(name).absolute().name if Path(name).exists() else name for name in names]
    return [
        f"{name} ({short[: number + 1].count(name)})" if short.count(name) > 1 else name
        for number, name in enumerate(short)
    ]


def _is_legal(name: str) -> bool:
    """Whether it may be a folder or a name on the Hub."""
    with contextlib.suppress(HFValidationError):
        from huggingface_hub.utils import validate_repo_id

        if not Path(name).exists():
            validate_repo_id(name)
        return True
    return False
