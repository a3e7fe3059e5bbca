"""Checkpoints of a pruning run: after every round, after every cut, and every few steps of training in between.

Each one is whole in itself: the model as it is, what is being trained with its optimizer's state, and how it all came
about. Random numbers and learning rates are functions of seed and step, so the step's number is all that is kept of
them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..run.checkpoint import (
    MODEL,
    CheckpointError,
    load_optimizer,
    load_state,
    newest_checkpoint,
    save_checkpoint,
)
from ..run.progress import quiet
from ..run.provenance import versions
from .plan import PruningPlan
from .result import RoundRecord

logger = logging.getLogger(__name__)
# What may differ between a run and its continuation: it changes a result by rounding alone, or not at all.
FREE = {"micro_batch_size", "save_steps", "keep_checkpoints"}


@dataclass
class OpenRound:
    """The round under way.

    Attributes:
        size_before: in the cost's unit.
        before: held-out losses and accuracies.
        after_cut: the same; None while nothing is cut.
        alphas: see `RoundRecord`.
        seconds: by phase.
        phase: that is being trained, "alphas" or "recovery"; None before the first.
        step: how many steps of that phase are done.
    """

    size_before: float
    before: dict[str, float]
    after_cut: dict[str, float] | None = None
    alphas: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    phase: str | None = None
    step: int = 0


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        position: of the next example in the training stream, at the begin of the phase under way.
        steps: of training, in all finished phases.
        records: one per finished round.
        plans: one per round that has been cut.
        open: the round under way; None between two rounds.
        halved: phases that go on at half the learning rate, since they met a loss that is not finite.
        data_state: the place of every process in a stream that is read in order; None for one addressed by number.
    """

    position: int = 0
    steps: int = 0
    records: list[RoundRecord] = field(default_factory=list)
    plans: list[PruningPlan] = field(default_factory=list)
    open: OpenRound | None = None
    halved: list[str] = field(default_factory=list)
    data_state: list[dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """Of its checkpoint; later ones sort after earlier ones."""
        name = f"round-{len(self.records):03d}"
        return name if self.open is None else f"{name}-{self.open.phase}-{self.open.step:07d}"

    def to_json(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "steps": self.steps,
            "rounds": [record.to_json() for record in self.records],
            "plans": [plan.to_json() for plan in self.plans],
            "open": None if self.open is None else asdict(self.open),
            "halved": self.halved,
            "data_state": self.data_state,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        return cls(
            position=value["position"],
            steps=value["steps"],
            records=[RoundRecord.from_json(record) for record in value["rounds"]],
            plans=[PruningPlan.from_json(plan) for plan in value["plans"]],
            open=None if value["open"] is None else OpenRound(**value["open"]),
            halved=list(value["halved"]),
            data_state=value["data_state"],
        )


@dataclass(frozen=True)
class Resumed:
    """What a run goes on from.

    Attributes:
        name: of the checkpoint.
        progress: up to then.
        model: as it was.
        tensors: of `TrainingLoop.state_tensors`, for the phase under way.
    """

    name: str
    progress: Progress
    model: PreTrainedModel
    tensors: dict[str, Tensor]


def save_progress(
    folder: Path,
    model: PreTrainedModel,
    progress: Progress,
    settings: Mapping[str, Any],
    *,
    tensors: dict[str, Tensor] | None = None,
    scaler: Mapping[str, Any] | None = None,
    keep: int | None = None,
) -> None:
    """Writes a checkpoint.

    Args:
        folder: where the checkpoints of the run lie.
        model: as it is now.
        progress: up to now.
        settings: what the run depends on, as JSON by name.
        tensors: of the phase under way, see `TrainingLoop.state_tensors`.
        scaler: state of the gradient scaler, in half precision.
        keep: how many checkpoints stay; None: all.

    Raises:
        CheckpointError: the disk refuses; earlier checkpoints are whole.
    """
    state = {
        "settings": dict(settings),
        "versions": versions(),
        "scaler": dict(scaler) if scaler else None,
        **progress.to_json(),
    }
    save_checkpoint(folder / progress.name, model, state=state, optimizer=tensors, keep=keep)


def check_not_begun(folder: Path) -> None:
    """Raises `CheckpointError` where an earlier run left checkpoints, which a new one would mix with."""
    if newest_checkpoint(folder) is not None:
        raise CheckpointError(
            f"`{folder}` holds the checkpoints of an earlier run. Go on with it by resuming (`--resume`), or give "
            "another output folder."
        )


def load_progress(
    checkpoint: Path, model: PreTrainedModel, settings: Mapping[str, Any]
) -> tuple[Resumed, dict[str, Any] | None]:
    """Reads a checkpoint.

    Args:
        checkpoint: its folder.
        model: the one that the run began with; the loaded one has its class, dtype and attention implementation.
        settings: what this run depends on.

    Returns:
        What to go on from, and the state of the gradient scaler, if there was one.

    Raises:
        CheckpointError: the checkpoint belongs to a run with other settings, or to no pruning run.
    """
    state = load_state(checkpoint)
    try:
        _check_settings(checkpoint, state["settings"], json.loads(json.dumps(settings)))
        progress = Progress.from_json(state)
        _compare_versions(checkpoint, state["versions"])
        scaler = state["scaler"]
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"`{checkpoint}` is no checkpoint of a pruning run: {error!r}. Give another output folder."
        ) from error
    with quiet():
        loaded: PreTrainedModel = type(model).from_pretrained(
            checkpoint / MODEL, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    for (
        parameter
    ) in loaded.parameters():  # read from a file they begin at any address; kernels round differently there
        parameter.data = parameter.data.clone()
    loaded.name_or_path = loaded.config._name_or_path = model.config._name_or_path
    return Resumed(checkpoint.name, progress, loaded, load_optimizer(checkpoint)), scaler


def _check_settings(checkpoint: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = sorted(name for name in {*then, *now} - FREE if then.get(name) != now.get(name))
    if names:
        changes = "; ".join(f"`{name}` was {then.get(name)!r} and is {now.get(name)!r}" for name in names)
        raise CheckpointError(
            f"`{checkpoint}` belongs to another run: {changes}. Give the same settings, or another output folder."
        )


def _compare_versions(checkpoint: Path, then: Mapping[str, str]) -> None:
    now = versions()
    changes = [
        f"{name} {then.get(name)} -> {now.get(name)}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if changes:
        logger.warning(
            "%s was written with other versions (%s): the run goes on, equal to rounding at best.",
            checkpoint.name,
            ", ".join(changes),
        )
