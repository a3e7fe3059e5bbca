"""What is trained in a round: alphas before the cut, and every weight of the smaller model after it."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from ..cost import Cost, penalty_weights
from ..shape import Shape
from ..training.loop import TrainingLoop
from ..training.objective import Objective
from ..training.phase import Phases
from .config import PruningConfig
from .gates import GatedObjective, Gates
from .plan import PruningPlan
from .teacher import with_teacher

ALPHAS, RECOVERY = "alphas", "recovery"


def train_alphas(phases: Phases, objective: Objective, cost: Cost, config: PruningConfig, description: str) -> Gates:
    """Step 3 of Algorithm 1: min over alpha of L + gamma * penalty, every weight frozen."""
    model, accelerator = objective.model, phases.accelerator
    gates = Gates(model.config, config.dimensions).to(accelerator.device)
    beta = penalty_weights(cost, Shape.of(model.config), gates.groups)
    model.requires_grad_(False)
    try:
        loop = TrainingLoop(
            accelerator,
            GatedObjective(objective, gates),
            gates.named_parameters(),
            config.alpha_loop(),
            penalty=lambda: config.gamma * gates.penalty(beta),
        )
        phases.run(ALPHAS, loop, f"{description} alphas", setting="alpha_learning_rate", watch=gates.drift)
    finally:
        model.requires_grad_(True)
        accelerator.free_memory()
    return gates


def recover(
    phases: Phases,
    objective: Objective,
    dense: PreTrainedModel,
    plans: Sequence[PruningPlan],
    config: PruningConfig,
    description: str,
) -> None:
    """Step 7: every weight of the smaller model is trained, on the loss alone or with the dense model as teacher."""
    loop = TrainingLoop(
        phases.accelerator,
        with_teacher(objective, dense, plans, config),
        objective.model.named_parameters(),
        config.recovery_loop(),
    )
    # What was learned about the cut may have cost more than a checkpoint does.
    phases.run(RECOVERY, loop, f"{description} recovery", setting="recovery_learning_rate", save_first=True)
    phases.accelerator.free_memory()
