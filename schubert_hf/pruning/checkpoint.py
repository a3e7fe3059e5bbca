"""Checkpoints of a pruning run, one per round: the smaller model and how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..training.checkpoint import MODEL, CheckpointError, load_state, newest_checkpoint, save_checkpoint
from ..training.progress import quiet
from .plan import PruningPlan
from .result import RoundRecord

# What may differ between a run and its continuation: it changes a result by rounding alone.
FREE = {"micro_batch_size"}


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        position: of the next example in the training stream.
        records, plans: one per finished round.
    """

    position: int = 0
    records: list[RoundRecord] = field(default_factory=list)
    plans: list[PruningPlan] = field(default_factory=list)


def save_round(folder: Path, model: PreTrainedModel, progress: Progress, settings: Mapping[str, Any]) -> None:
    """Writes the checkpoint of the last finished round.

    Args:
        folder: where the checkpoints of the run lie.
        model: after the round.
        progress: with the round's record and plan.
        settings: what the run depends on, as JSON by name.
    """
    state = {
        "settings": dict(settings),
        "position": progress.position,
        "rounds": [record.to_json() for record in progress.records],
        "plans": [plan.to_json() for plan in progress.plans],
    }
    save_checkpoint(folder / f"round-{len(progress.records):03d}", model, state=state)


def check_not_begun(folder: Path) -> None:
    """Raises `CheckpointError` where an earlier run left checkpoints, which a new one would mix with."""
    if newest_checkpoint(folder) is not None:
        raise CheckpointError(
            f"`{folder}` holds the checkpoints of an earlier run. Go on with it by resuming (`--resume`), or give "
            "another output folder."
        )


def load_round(
    folder: Path, model: PreTrainedModel, settings: Mapping[str, Any]
) -> tuple[Progress, PreTrainedModel] | None:
    """The newest checkpoint of a run; None where no round was finished.

    Args:
        folder: where the checkpoints of the run lie.
        model: the one that the run began with; the loaded one has its class, dtype and attention implementation.
        settings: what this run depends on.

    Raises:
        CheckpointError: the checkpoint belongs to a run with other settings, or to no pruning run.
    """
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        return None
    state = load_state(checkpoint)
    try:
        _check_settings(checkpoint, state["settings"], json.loads(json.dumps(settings)))
        progress = Progress(
            position=state["position"],
            records=[RoundRecord.from_json(record) for record in state["rounds"]],
            plans=[PruningPlan.from_json(plan) for plan in state["plans"]],
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"`{checkpoint}` is no checkpoint of a pruning run: {error!r}. Give another output folder."
        ) from error
    with quiet():
        smaller: PreTrainedModel = type(model).from_pretrained(
            checkpoint / MODEL, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    smaller.name_or_path = smaller.config._name_or_path = model.config._name_or_path
    return progress, smaller


def _check_settings(checkpoint: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = sorted(name for name in {*then, *now} - FREE if then.get(name) != now.get(name))
    if names:
        changes = "; ".join(f"`{name}` was {then.get(name)!r} and is {now.get(name)!r}" for name in names)
        raise CheckpointError(
            f"`{checkpoint}` belongs to another run: {changes}. Give the same settings, or another output folder."
        )
