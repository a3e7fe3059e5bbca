"""The weights that a run begins with, and which ones a model holds, as one number."""

from __future__ import annotations

import copy
import zlib

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from ..auto import MODELS
from ..conversion import ConversionError, convert_bert
from .surgery import check_tensors


def fingerprint(model: PreTrainedModel) -> int:
    """CRC-32 of a model's parameters, bit for bit: tells whether two hold the same weights."""
    value = 0
    for parameter in model.parameters():
        value = zlib.crc32(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(), value)
    return value


def check_same_weights(accelerator: Accelerator, model: PreTrainedModel) -> None:
    """Raises `RuntimeError` on every process unless all of them hold the same weights, bit for bit."""
    own = torch.tensor([fingerprint(model)], device=accelerator.device)
    everyone = accelerator.gather(own).tolist()
    if len(set(everyone)) > 1:
        raise RuntimeError(
            f"The processes hold different weights (fingerprints {everyone}), so they would prune different models. "
            "Load the same checkpoint in every process, and seed what is drawn: a new head differs otherwise."
        )


def own_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A SchuBERT with the weights of `model`, in at least single precision.

    Raises:
        ConversionError, UnknownTensorError: it is none that can be pruned.
    """
    copied = convert_bert(model) if model.config.model_type == "bert" else copy.deepcopy(model)
    name = type(copied).__name__
    if name not in {known.__name__ for known in MODELS.values()}:
        raise ConversionError(f"`{name}` is no SchuBERT and no BERT. Load a BERT checkpoint with `schubert_hf.load`.")
    check_tensors(copied)
    return copied.to(torch.promote_types(copied.dtype, torch.float32))
