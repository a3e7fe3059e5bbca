"""What is trained in a round: alphas before the cut; the objective and the teacher after it (see `recovery`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from ..anatomy import Axis
from ..cost import Cost, penalty_weights
from ..shape import Shape
from ..training.distillation import DistillationObjective, Teacher
from ..training.loop import TrainingLoop
from ..training.objective import Objective, ObjectiveError
from ..training.outputs import Outputs
from ..training.phase import Phases
from .config import PruningConfig
from .gates import GatedObjective, Gates
from .plan import PruningPlan, kept_after


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
        phases.run("alphas", loop, f"{description} alphas", setting="alpha_learning_rate", watch=gates.drift)
    finally:
        model.requires_grad_(True)
        accelerator.free_memory()
    return gates


def wants_teacher(config: PruningConfig) -> bool:
    """Whether a run with these settings needs the dense model in recovery."""
    return config.recovery_steps > 0 and ((config.teacher_weight or 0.0) > 0 or config.teacher_hidden_weight > 0)


def with_teacher(
    objective: Objective, dense: PreTrainedModel, plans: Sequence[PruningPlan], config: PruningConfig
) -> Objective:
    """The pruned model's objective with the dense model as teacher; unchanged where the settings want none.

    An objective that follows the dense model's outputs already can still follow its hidden states.

    Args:
        plans: of all rounds so far, each in the numbering of the round before.

    Raises:
        ObjectiveError: the objective does not say what a model predicts.
    """
    weight = 0.0 if objective.follows_dense else config.teacher_weight or 0.0
    if not wants_teacher(config) or not (weight or config.teacher_hidden_weight):
        return objective
    if type(objective).predict is Objective.predict:
        raise ObjectiveError(
            f"`{type(objective).__name__}` has no `predict`, which a teacher needs. Give it one, or set "
            "`teacher_weight=0` and `teacher_hidden_weight=0`."
        )
    kept = {}
    if config.teacher_hidden_weight and plans:  # of the hidden states, the embeddings come first
        layers = (0, *(layer + 1 for layer in kept_after(plans, "layers")))
        kept = {"channels": kept_after(plans, "hidden"), "layers": layers}
    teacher = Teacher(
        dense.eval(),
        weight=weight,
        temperature=config.teacher_temperature,
        hidden_weight=config.teacher_hidden_weight,
        **kept,
    )
    return DistillationObjective(objective, teacher)


def narrowed(
    make: Callable[[PreTrainedModel], Objective], plan: PruningPlan
) -> Callable[[PreTrainedModel], Objective]:
    """What makes the objective of a model that a plan has cut, from what made it before."""
    return make.narrowed(plan.kept(Axis("hidden", -1)).tolist()) if isinstance(make, Outputs) else make
