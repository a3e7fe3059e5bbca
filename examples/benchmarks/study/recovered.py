"""The pruner's recovery, rate and guard included, of a model that something else has cut."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from schubert_hf import PruningConfig
from schubert_hf.pruning.data import PruningData
from schubert_hf.pruning.recovery import Recovery
from schubert_hf.run.session import Session
from schubert_hf.training.objective import Objective
from schubert_hf.training.phase import Phases


def recover(
    accelerator: Accelerator, objective: Objective, data: PruningData, config: PruningConfig, *, position: int = 0
) -> dict[str, Any]:
    """Trains an objective's model as the pruner does after a cut; nothing is saved.

    Args:
        config: its recovery's settings.
        position: of the first example in the training stream.

    Returns:
        See `Recovery.run`.
    """
    session = Session(accelerator, None, {}, settings={}, name=lambda: "recovery")
    session.model = objective.model
    phases = Phases(session, data.stream, data.collator, save_steps=max(1, config.recovery_steps), position=position)
    with session.guard:
        return Recovery(phases, config.resolve()).run(objective, "training")
