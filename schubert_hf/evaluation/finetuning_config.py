"""FinetuningConfig: how a task is trained on, flat, with the help text that the command line shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..training.loop_config import LoopConfig, LoopConfigError, check_ranges, option


@dataclass(frozen=True)
class FinetuningConfig:
    """Settings of fine-tuning. The paper gives none of them; the defaults are Devlin et al.'s (2019, appendix A.3).

    Raises:
        LoopConfigError: a value out of its range, named with the range.
    """

    epochs: float = option(3.0, "Passes over the training examples.")
    steps: int = option(0, "Optimizer steps; 0: as `epochs` says.", least=0)
    batch_size: int = option(32, "Examples per step, over all processes.", least=1)
    micro_batch_size: int | None = option(None, "Examples per process and forward pass. Default: no accumulation.")
    learning_rate: float = option(5e-5, "Peak learning rate.")
    schedule: str = option("linear", "Schedule of the learning rate: a name from transformers' get_scheduler.")
    warmup: float = option(0.1, "Share of the steps that warm the learning rate up.", least=0, most=1)
    weight_decay: float = option(0.01, "Weight decay of matrices; biases and LayerNorm have none.")
    max_grad_norm: float = option(1.0, "Clipping of the gradients; 0 for none.")
    eval_steps: int = option(0, "Steps between evaluations; 0: one after every epoch.", least=0)
    save_steps: int = option(500, "Steps between checkpoints; each evaluation leaves one, too.", least=1)
    keep_checkpoints: int = option(1, "How many checkpoints stay while a model is trained; none after it.", least=1)
    eval_batch_size: int = option(64, "Examples per process and forward pass of an evaluation.", least=1)
    workers: int = option(0, "Processes that prepare batches; 0 prepares them in the main process.")

    def __post_init__(self) -> None:
        check_ranges(self, LoopConfigError)
        if not 0 < self.epochs < math.inf:
            raise LoopConfigError(f"`epochs` is {self.epochs!r}; allowed is a number above 0.")
        self.loop(1, 0)

    def steps_per_epoch(self, examples: int) -> int:
        return math.ceil(examples / self.batch_size)

    def loop(self, examples: int, seed: int) -> LoopConfig:
        """What these settings mean for so many training examples.

        Args:
            examples: to train on.
            seed: of order and dropout.
        """
        steps = self.steps or max(1, math.ceil(self.epochs * examples / self.batch_size))
        return LoopConfig.of(self, steps=steps, warmup_steps=int(self.warmup * steps), seed=seed)
