"""FinetuningConfig: how a checkpoint is trained on a task."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..training.loop_config import LoopConfig, LoopConfigError, option

# What may differ between a run and its continuation: it changes no weight, and no choice of a checkpoint.
FREE = ("save_steps", "keep_checkpoints", "micro_batch_size", "workers")


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig(LoopConfig):
    """Settings of `Finetuning`. The paper gives none; the defaults are those of Devlin et al. 2019, appendix A.3.

    Raises:
        LoopConfigError: a value out of its range, named with the range.
    """

    steps: int = option(0, "Optimizer steps. 0: as many as --epochs are.")
    epochs: float = option(3.0, "Passes over the training examples, where --steps is 0.")
    learning_rate: float = option(2e-5, "Peak learning rate.")
    warmup_steps: int = option(0, "Steps of linear warm-up, part of all steps. 0: by --warmup-ratio.")
    warmup_ratio: float = option(0.1, "Share of all steps that warm up, where --warmup-steps is 0.")
    eval_steps: int = option(0, "Steps between evaluations. 0: as many as an epoch has.")
    save_steps: int = option(500, "Steps between checkpoints; every evaluation leaves one, too.")
    keep_checkpoints: int = option(2, "Checkpoints that stay while training. The best weights stay beside them.")
    seed: int = option(0, "Seed of a fresh head, of order and dropout.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"eval_steps": 0, "save_steps": 1, "keep_checkpoints": 1}.items():
            if getattr(self, name) < least:
                raise LoopConfigError(f"`{name}` is {getattr(self, name)}; allowed is a number of at least {least}.")
        if not 0 < self.epochs < math.inf:
            raise LoopConfigError(f"`epochs` is {self.epochs}; allowed is a number above 0, e.g. 3 or 0.5.")
        if not 0 <= self.warmup_ratio <= 1:
            raise LoopConfigError(f"`warmup_ratio` is {self.warmup_ratio}; allowed is a number from 0 to 1.")

    def resolved(self, examples: int) -> FinetuningConfig:
        """The same with every number of steps spelled out, for a training set of this size."""
        steps = self.steps or math.ceil(self.epochs * examples / self.batch_size)
        return replace(
            self,
            steps=steps,
            warmup_steps=self.warmup_steps or math.ceil(self.warmup_ratio * steps),
            eval_steps=self.eval_steps or math.ceil(examples / self.batch_size),
        )

    def to_settings(self) -> dict[str, Any]:
        """What a continuation must have in common with the run that it continues; plain JSON."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}
