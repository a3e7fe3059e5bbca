"""Results on tasks, as the scripts leave them in `results.json`: every number with what is needed to repeat it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SchuBertError
from ..run.checkpoint import write_json

FILE = "results.json"
FORMAT = 1


class ResultsError(SchuBertError):
    """A file that holds no results."""


@dataclass(frozen=True)
class TaskResult:
    """What a model reached on one split of one task, by metric and seed.

    Attributes:
        task: our name of it, e.g. "sst2".
        dataset: its name on the Hub, e.g. "nyu-mll/glue".
        config: the configuration there, e.g. "sst2"; None where there is one only.
        task_type: the Hub's name of the kind of task, e.g. "text-classification".
        split: that was evaluated, e.g. "validation".
        metrics: name -> value by seed; in per cent where the metric's definition has per cent (SQuAD), else as
            fractions or correlations. The first is the one that models are chosen and averaged by.
        seeds: of the fine-tuning runs, in the order of the values; none where a checkpoint was evaluated as it is.
        examples, train_examples: how many were evaluated and trained on.
        run: what repeats it, as JSON: command, settings, versions, machine, date.
        notes: what must stand beside the number, e.g. that it is of a slice.
    """

    task: str
    dataset: str
    config: str | None
    task_type: str
    split: str
    metrics: dict[str, list[float]]
    seeds: list[int]
    examples: int
    train_examples: int | None = None
    run: dict[str, Any] = field(default_factory=dict)
    notes: str | None = None

    @property
    def main_metric(self) -> str:
        return next(iter(self.metrics))

    def mean(self, metric: str | None = None) -> float:
        """Over the seeds; of the main metric by default."""
        return statistics.fmean(self.metrics[metric or self.main_metric])

    def std(self, metric: str | None = None) -> float | None:
        """The sample's standard deviation over the seeds; None of a single one."""
        values = self.metrics[metric or self.main_metric]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Results:
    """All results of one model.

    Attributes:
        model: what `provenance.base_model` says of the checkpoint that was fine-tuned, and its `parameters`.
        results: one per task and split.
    """

    model: dict[str, Any]
    results: tuple[TaskResult, ...]

    @property
    def average(self) -> float | None:
        """The paper's mean over its six tasks, in per cent; None where one of them is not there."""
        return paper_average(self.results)

    def merged(self, earlier: Results) -> Results:
        """These results, and those of tasks that only `earlier` has; of another model none."""
        known = {(result.task, result.split) for result in self.results}
        kept = tuple(r for r in earlier.results if (r.task, r.split) not in known)
        return Results(self.model, (*kept, *self.results)) if earlier.model == self.model else self

    def to_json(self) -> dict[str, Any]:
        results = [asdict(result) for result in self.results]
        return {"format": FORMAT, "model": self.model, "results": results, "average": self.average}

    @classmethod
    def from_json(cls, value: Any) -> Results:
        """The inverse of `to_json`.

        Raises:
            ResultsError: it is no such thing, with the first thing that is wrong.
        """
        try:
            fields = dict(value)
            if fields.pop("format", None) != FORMAT:
                raise ResultsError(f"its `format` is {value.get('format')!r}, known is {FORMAT}")
            fields.pop("average", None)  # follows from the others
            results = tuple(TaskResult(**item) for item in fields.pop("results"))
            for result in results:
                _check(result)
            return cls(results=results, **fields)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ResultsError(
                f"These are no results: {error}. Write them with run_glue.py or run_squad.py."
            ) from error

    def write(self, path: Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Results:
        """Reads a `results.json`, or the one in a folder.

        Raises:
            ResultsError: there is none, or it holds something else.
        """
        path = path / FILE if path.is_dir() else path
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResultsError(f"`{path}` cannot be read: {error}. Give the {FILE} of a run.") from error
        return cls.from_json(value)


# Khetan & Karnin 2020, section 4: F1 of the SQuADs, MNLI on the matched split.
PAPER = ("squad", "squad_v2", "mnli", "mrpc", "sst2", "rte")


def paper_average(results: Sequence[TaskResult]) -> float | None:
    """The mean of the main metrics of the paper's six tasks, in per cent; None where one is missing."""
    first: dict[str, TaskResult] = {}
    for result in results:
        first.setdefault(result.task, result)  # of MNLI's two splits, matched is the first
    if not set(PAPER) <= first.keys():
        return None
    return statistics.fmean(first[task].mean() * (1 if task.startswith("squad") else 100) for task in PAPER)


def _check(result: TaskResult) -> None:
    if not result.metrics:
        raise ResultsError(f"`{result.task}` has no metrics")
    for name, values in result.metrics.items():
        numbers = isinstance(values, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in values
        )
        if not numbers or len(values) != max(1, len(result.seeds)):
            raise ResultsError(
                f"`{name}` of `{result.task}` is {values!r}, expected one number for each of {result.seeds}"
            )
