"""LoopConfig: settings of one training phase, and what they mean to the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from ..errors import SchuBertError


class LoopConfigError(SchuBertError):
    """A setting of the training loop that is not allowed, or that does not fit the number of processes."""


def option(default: Any, text: str) -> Any:
    """A field of a config, with the help text that the command line shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class LoopConfig:
    """Settings of one training phase.

    Raises:
        LoopConfigError: a value out of its range, named with the range.
    """

    steps: int = field(metadata={"help": "Optimizer steps."})
    batch_size: int = option(32, "Examples per step, over all processes.")
    micro_batch_size: int | None = option(None, "Examples per process and forward pass. Default: no accumulation.")
    learning_rate: float = option(1e-4, "Peak learning rate.")
    schedule: str = option("linear", "Schedule of the learning rate: a name from transformers' get_scheduler.")
    warmup_steps: int = option(0, "Steps of linear warm-up, part of all steps.")
    weight_decay: float = option(0.01, "Weight decay of matrices; biases and LayerNorm have none.")
    adam_beta2: float = option(0.999, "AdamW's decay of the second moments.")
    max_grad_norm: float = option(1.0, "Clipping of the gradients; 0 for none.")
    seed: int = option(0, "Seed; in the loop it decides dropout.")
    workers: int = option(0, "Processes that prepare batches; 0 prepares them in the main process.")

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise LoopConfigError(f"`{name}` is {value!r}; allowed is a number of at least {least}.")
        if not 0 <= self.adam_beta2 < 1:
            raise LoopConfigError(f"`adam_beta2` is {self.adam_beta2!r}; allowed is a number from 0 to below 1.")
        learning_rate_factor(self)


_LEAST = {
    "steps": 0,
    "batch_size": 1,
    "micro_batch_size": 1,
    "learning_rate": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "workers": 0,
}


def learning_rate_factor(config: LoopConfig) -> Callable[[int], float]:
    """The share of the peak learning rate at each step, as a function of the step's number alone.

    Raises:
        LoopConfigError: no schedule of that name, or one that depends on more than the step.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)  # only lends its shape
    try:
        schedule = get_scheduler(
            config.schedule, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=max(1, config.steps)
        )
    except (ValueError, TypeError) as error:
        raise LoopConfigError(
            f"`schedule` is {config.schedule!r}: {error}. Allowed are linear, cosine, constant_with_warmup, ..."
        ) from error
    if not isinstance(schedule, LambdaLR):
        raise LoopConfigError(f"`schedule` is {config.schedule!r}, which depends on more than the step's number.")
    factor: Callable[[int], float] = schedule.lr_lambdas[0]
    return factor


def parameter_groups(trained: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """The groups of AdamW: matrices decay, biases and LayerNorm do not."""
    decayed = {name for name, parameter in trained.items() if parameter.ndim > 1}
    matrices = [parameter for name, parameter in trained.items() if name in decayed]
    others = [parameter for name, parameter in trained.items() if name not in decayed]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
