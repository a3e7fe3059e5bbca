"""The dense model as a teacher in recovery: which of its channels and layers the pruned one still has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedModel

from ..training.distillation import DistillationObjective, Teacher
from ..training.objective import Objective, ObjectiveError
from .config import PruningConfig
from .plan import PruningPlan, kept_channels, kept_layers


def with_teacher(
    objective: Objective, dense: PreTrainedModel, plans: Sequence[PruningPlan], config: PruningConfig
) -> Objective:
    """The objective with the dense model as teacher; as it is where the settings want none.

    Args:
        objective: of the pruned model.
        dense: the model that the run began with, on the device.
        plans: of all rounds so far, each in the numbering of the round before.
        config: resolved; has weights and temperature.
    """
    if not wants_teacher(config):
        return objective
    teacher = Teacher(
        dense.eval(),
        weight=config.teacher_weight or 0.0,
        temperature=config.teacher_temperature,
        hidden_weight=config.teacher_hidden_weight,
    )
    if teacher.hidden_weight and plans:
        layers = (0, *(layer + 1 for layer in kept_layers(plans)))  # the embeddings come first
        teacher = replace(teacher, channels=kept_channels(plans), layers=layers)
    return DistillationObjective(objective, teacher)


def check_can_be_taught(objective: Objective, config: PruningConfig) -> None:
    """Raises `ObjectiveError` where a teacher is wanted and the objective does not say what a model predicts."""
    if wants_teacher(config) and type(objective).predict is Objective.predict:
        raise ObjectiveError(
            f"`{type(objective).__name__}` has no `predict`, which a teacher needs. Give it one, or set "
            "`teacher_weight=0` and `teacher_hidden_weight=0`."
        )


def wants_teacher(config: PruningConfig) -> bool:
    """Whether a run with these settings needs the dense model in recovery."""
    return config.recovery_steps > 0 and ((config.teacher_weight or 0.0) > 0 or config.teacher_hidden_weight > 0)
