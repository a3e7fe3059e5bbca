"""LoopConfig: settings of one training phase, and what they mean to the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from ..errors import SchuBertError

AUTO, NO = "auto", "no"  # of `precision`


class LoopConfigError(SchuBertError):
    """A setting of the training loop that is not allowed, or that does not fit the number of processes."""


def option(default: Any, text: str, *, least: float | None = None, most: float = math.inf) -> Any:
    """A field of a config: its default, the help text of the command line, and its range (see `check_ranges`)."""
    return field(default=default, metadata={"help": text, "least": least, "most": most})


def check_ranges(config: Any, error: type[SchuBertError]) -> None:
    """Raises `error` where a field of a config is no number of its kind within its range.

    Args:
        config: a dataclass whose annotations are text; a field of a type with None may be None.
        error: names field, value and range.
    """
    for setting in fields(config):
        least, most = setting.metadata.get("least"), setting.metadata.get("most", math.inf)
        value, whole = getattr(config, setting.name), str(setting.type).startswith("int")
        if least is None or (value is None and "None" in str(setting.type)):
            continue
        if type(value) not in ((int,) if whole else (int, float)) or not least <= value <= most or value == math.inf:
            range_ = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
            kind = "a whole number" if whole else "a number"
            raise error(f"`{setting.name}` is {value!r}; allowed is {kind} {range_}.")


@dataclass(frozen=True)
class LoopConfig:
    """Settings of one training phase.

    Raises:
        LoopConfigError: a value out of its range, named with the range.
    """

    steps: int = field(metadata={"help": "Optimizer steps.", "least": 0})
    batch_size: int = option(32, "Examples per step, over all processes.", least=1)
    micro_batch_size: int | None = option(
        None, "Examples per process and forward pass. Default: no accumulation.", least=1
    )
    learning_rate: float = option(1e-4, "Peak learning rate.", least=0)
    schedule: str = option("linear", "Schedule of the learning rate: a name from transformers' get_scheduler.")
    warmup_steps: int = option(0, "Steps of linear warm-up, part of all steps.", least=0)
    weight_decay: float = option(0.01, "Weight decay of matrices; biases and LayerNorm have none.", least=0)
    adam_beta2: float = option(0.999, "AdamW's decay of the second moments.")
    max_grad_norm: float = option(1.0, "Clipping of the gradients; 0 for none.", least=0)
    seed: int = option(0, "Seed; in the loop it decides dropout.", least=0)
    precision: str = option(NO, "no: float32; auto: bfloat16 products on a CPU that makes them by itself.")
    workers: int = option(0, "Processes that prepare batches; 0 prepares them in the main process.", least=0)

    def __post_init__(self) -> None:
        check_ranges(self, LoopConfigError)
        if not 0 <= self.adam_beta2 < 1:
            raise LoopConfigError(f"`adam_beta2` is {self.adam_beta2!r}; allowed is a number from 0 to below 1.")
        if self.precision not in (AUTO, NO):
            raise LoopConfigError(f"`precision` is {self.precision!r}; allowed is {AUTO} or {NO}.")
        learning_rate_factor(self)

    @classmethod
    def of(cls, settings: Any, **changes: Any) -> LoopConfig:
        """The settings that another config has under the same names, with some changes."""
        same = {one.name: getattr(settings, one.name) for one in fields(cls) if hasattr(settings, one.name)}
        return cls(**{**same, **changes})


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
    matrices = [parameter for parameter in trained.values() if parameter.ndim > 1]
    others = [parameter for parameter in trained.values() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
