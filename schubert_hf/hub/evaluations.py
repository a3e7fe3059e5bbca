"""Results on tasks, as a folder keeps them (`evaluation.json`) and in the two forms that the Hub reads.

`.eval_results/*.yaml` is the Hub's present form, `model-index` in the card's metadata its old one; both are written.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from ..run.checkpoint import write_json
from .errors import RecordError

FILE = "evaluation.json"
FOLDER = ".eval_results"


@dataclass(frozen=True)
class Evaluation:
    """One number on one data set.

    Attributes:
        dataset: its name on the Hub, e.g. "nyu-mll/glue".
        task: the task within it, e.g. "sst2"; the Hub calls it configuration or task id.
        task_type: the Hub's name for the kind of task, e.g. "text-classification".
        metric: the metric's name on the Hub, e.g. "accuracy".
        value: as measured; a fraction or in per cent, as the metric has it. Of several seeds the mean.
        base_value: the same for the dense model, if it was measured in the same way.
        split: e.g. "validation".
        revision: the data set's commit.
        date: when it was measured, ISO 8601.
        notes: what a reader needs to repeat it, e.g. seeds and epochs.
        std: the standard deviation over the seeds.
        hub: whether the data set is one on the Hub; others are named on the page alone.
    """

    dataset: str
    task: str
    task_type: str
    metric: str
    value: float
    base_value: float | None = None
    split: str | None = None
    revision: str | None = None
    date: str | None = None
    notes: str | None = None
    std: float | None = None
    hub: bool = True

    def to_model_index(self) -> EvalResult:
        return EvalResult(
            task_type=self.task_type,
            dataset_type=self.dataset,
            dataset_name=f"{self.dataset} ({self.task})",
            dataset_config=self.task,
            dataset_split=self.split,
            dataset_revision=self.revision,
            metric_type=self.metric,
            metric_value=self.value,
        )

    def to_entry(self) -> dict[str, Any]:
        """An item of `.eval_results/*.yaml`, as `huggingface_hub.EvalResultEntry` has it; older clients lack that."""
        dataset = {"id": self.dataset, "task_id": self.task}
        if self.revision is not None:
            dataset["revision"] = self.revision
        entry: dict[str, Any] = {"dataset": dataset, "value": self.value}
        if self.date is not None:
            entry["date"] = self.date
        spread = None if self.std is None else f"standard deviation {self.std:.4g}"
        return {**entry, "notes": ", ".join(filter(None, [self.metric, self.split, spread, self.notes]))}

    def to_json(self) -> dict[str, Any]:
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return found if not self.hub else {name: value for name, value in found.items() if name != "hub"}


def read_evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """The results in a folder's `evaluation.json`; none where there is no such file.

    Raises:
        RecordError: the file is there and is not a list of results.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    try:
        return parse_evaluations(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RecordError(f"`{FILE}` holds no list of results: {error}. Write it anew, or remove it.") from error


def parse_evaluations(value: Any) -> tuple[Evaluation, ...]:
    return tuple(Evaluation(**item) for item in value)


def write_evaluations(folder: Path, evaluations: tuple[Evaluation, ...]) -> None:
    """Keeps results in a folder, for its card."""
    write_json(folder / FILE, [evaluation.to_json() for evaluation in evaluations])


def eval_result_files(evaluations: tuple[Evaluation, ...]) -> dict[str, str]:
    """Path in the repository -> YAML, a file per data set."""
    files: dict[str, list[dict[str, Any]]] = {}
    for evaluation in (evaluation for evaluation in evaluations if evaluation.hub):
        name = re.sub(r"[^A-Za-z0-9]+", "-", evaluation.dataset).strip("-").lower()
        files.setdefault(f"{FOLDER}/{name}.yaml", []).append(evaluation.to_entry())
    return {path: yaml.safe_dump(entries, sort_keys=False, allow_unicode=True) for path, entries in files.items()}
