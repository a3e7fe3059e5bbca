"""What all cells of the study share, and the settings of one of them."""

from __future__ import annotations

from dataclasses import dataclass

from schubert_hf import PruningConfig
from schubert_hf.training.pretraining import PretrainingConfig

from .rows import Row


@dataclass(frozen=True)
class Plan:
    """What all cells share.

    Attributes:
        sizes: percentages of the dense model's parameters, falling.
        alpha_steps, recovery_steps: per size; a row that trains no alphas recovers for the sum of both.
    """

    sizes: tuple[int, ...]
    alpha_steps: int
    recovery_steps: int
    batch_size: int
    eval_examples: int
    multiple_of: str

    def config(self, row: Row, seed: int, stage: int, target: int) -> PruningConfig:
        """Settings of the pruner. Each stage sees other examples; all rows see the same."""
        steps = self.recovery_steps + (0 if row.trains_alphas else self.alpha_steps)
        return PruningConfig(
            target=target,
            alpha_steps=self.alpha_steps,
            recovery_steps=steps,
            batch_size=self.batch_size,
            eval_examples=self.eval_examples,
            multiple_of=self.multiple_of,
            seed=1000 * seed + stage,
            # A rate is found for weights that know something; others have that of examples/pretrain.py.
            recovery_learning_rate=PretrainingConfig.learning_rate if row.kind == "scratch" else None,
            **(row.settings if row.kind == "pruned" else {"method": "uniform"}),
        )
