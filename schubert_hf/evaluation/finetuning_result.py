"""What a fine-tuning run reached, and the file beside its model that keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..training.checkpoint import CheckpointError
from ..training.output import MARKER

FILE = "finetuning.json"


@dataclass(frozen=True)
class FinetuningResult:
    """What a run reached.

    Attributes:
        evaluations: `{"step", "train_loss", "metrics"}` each, in order; the loss is the mean since the one before.
        best_step: after which the weights that were kept were evaluated.
        metrics: theirs.
        steps: optimizer steps taken.
        examples: of the training set.
        seconds: all told, over interruptions.
    """

    evaluations: tuple[dict[str, Any], ...]
    best_step: int
    metrics: dict[str, float]
    steps: int
    examples: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "evaluations": list(self.evaluations)}


def read_finished(output: Path, settings: dict[str, Any]) -> FinetuningResult | None:
    """The result of a run that is finished; None where it is not.

    Args:
        output: the run's folder.
        settings: of `run_settings`.

    Raises:
        CheckpointError: the folder holds another model, or that of a run with other settings.
    """
    if not (output / MARKER).exists():
        return None
    try:
        kept = json.loads((output / FILE).read_text(encoding="utf-8"))
        fields = {name: kept[name] for name in FinetuningResult.__dataclass_fields__}
        before = dict(kept["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"`{output}` holds a model, and no {FILE} of a run that could be gone on with: {error}. "
            "Give another output folder."
        ) from error
    check_settings(output, before, settings)
    return FinetuningResult(**{**fields, "evaluations": tuple(fields["evaluations"])})


def check_settings(place: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises `CheckpointError` where a run would go on with other settings than it began with."""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise CheckpointError(
                f"`{place}` belongs to a run with `{name}` = {before.get(name)!r}, now {now.get(name)!r}. "
                "Give the same settings, or another output folder."
            )
