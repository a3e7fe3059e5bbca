"""Which weights a model holds, as one number: to tell runs apart, and processes that have drifted apart."""

from __future__ import annotations

import zlib

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel


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
