"""Whether a pruning run fits into the memory of its device, said before it starts."""

from __future__ import annotations

import logging
import os

from accelerate import Accelerator
from transformers import PreTrainedModel

from ..run.memory import MemoryEstimate, check_fits, estimate_training
from .config import PruningConfig
from .teacher import wants_teacher

logger = logging.getLogger(__name__)


def check_memory(
    accelerator: Accelerator, model: PreTrainedModel, config: PruningConfig, seq_len: int, *, masked: float = 0.15
) -> None:
    """Warns where the first recovery, the phase that needs most, would not fit into what is free on the device.

    Args:
        accelerator: knows device, processes and precision.
        model: that the run begins with; the first recovery's is somewhat smaller.
        config: of the run.
        seq_len: word pieces per example.
        masked: share of them that a masked-LM head predicts; 0 for other heads, whose logits are too few to count.

    Raises:
        MemoryLimitError: it needs more than the whole device has.
    """
    share = config.batch_size // accelerator.num_processes
    examples = min(config.micro_batch_size or -(-share // accelerator.gradient_accumulation_steps), share)

    def estimate(number: int) -> MemoryEstimate:
        return estimate_training(
            model.config,
            model.num_parameters(),
            examples=number,
            seq_len=seq_len,
            masked=masked,
            teacher=wants_teacher(config),
            mixed=accelerator.mixed_precision in ("fp16", "bf16"),
            trained=None if config.recovery_steps else 0,
            accumulates=number < share,
            device=accelerator.device.type,
        )

    processes = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    warning = check_fits(estimate, examples=examples, device=accelerator.device, processes=processes)
    if warning is not None and accelerator.is_main_process:
        logger.warning(warning)
