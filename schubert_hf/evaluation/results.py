"""Results on tasks: every number with what it takes to reproduce it. `results.json` and model pages hold the same."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..errors import SchuBertError
from ..run.checkpoint import write_json
from ..run.provenance import environment

FILE = "results.json"
FORMAT = 1
# Khetan & Karnin 2020, section 4: F1 of the SQuADs, MNLI on the matched split.
PAPER = ("squad", "squad_v2", "mnli", "mrpc", "sst2", "rte")

# Metrics that only explain others; they are not shown on a page.
_EXPLAINING = ("total", "thresh", "best_", "HasAns", "NoAns")


class ResultsError(SchuBertError):
    """A file that holds no results, or those of another model."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics of a model on one split of one task.

    Raises:
        ResultsError: there are no metrics, or not one number per seed.
    """

    task: str  # our name for it, e.g. "sst2"
    dataset: str  # its name on the Hub, e.g. "nyu-mll/glue"
    config: str | None = None  # its configuration there; None if it has only one
    task_type: str  # the Hub's name for the kind of task, e.g. "text-classification"
    split: str | None = None  # the evaluated one, e.g. "validation"
    # Name -> one value per seed. SQuAD's F1 and exact match are out of 100, all others are fractions or correlations.
    # The first metric selects the best checkpoint and enters the average.
    metrics: dict[str, list[float]]
    seeds: list[int] = field(default_factory=list)  # of the values; empty if a checkpoint was evaluated as it is
    examples: int | None = None  # that the model was evaluated on
    train_examples: int | None = None
    # What reproduces it, as JSON: command, settings, data, versions, machine, date, the data set's revision.
    run: dict[str, Any] = field(default_factory=dict)
    notes: str | None = None  # what a reader must know, e.g. that only part of a split was used
    base: dict[str, float] = field(default_factory=dict)  # metric -> the dense model's mean, evaluated the same way
    stds: dict[str, float] = field(default_factory=dict)  # metric -> where only the mean over the seeds is known

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ResultsError(f"`{self.task}` has no metrics")
        for name, values in self.metrics.items():
            numbers = isinstance(values, list) and all(
                isinstance(value, int | float) and not isinstance(value, bool) for value in values
            )
            if not numbers or len(values) != max(1, len(self.seeds)):
                raise ResultsError(
                    f"`{name}` of `{self.task}` is {values!r}; expected is one number for each of {self.seeds}"
                )

    @property
    def main_metric(self) -> str:
        return next(iter(self.metrics))

    @property
    def shown(self) -> list[str]:
        """The metrics that belong on a page."""
        return [name for name in self.metrics if not any(word in name for word in _EXPLAINING)]

    @property
    def hub(self) -> bool:
        """Whether the data set is on the Hub, as the official ones are, wherever they were read from."""
        data = self.run.get("data")
        return not isinstance(data, dict) or bool(data.get("hub"))

    @property
    def remarks(self) -> str:
        """What stands beside the mean on a page."""
        seeds = f"mean of seeds {', '.join(map(str, self.seeds))}" if len(self.seeds) > 1 else None
        return "; ".join(filter(None, [seeds, self.notes]))

    def mean(self, metric: str | None = None) -> float:
        """Over the seeds; of the main metric by default."""
        return statistics.fmean(self.metrics[metric or self.main_metric])

    def std(self, metric: str | None = None) -> float | None:
        """The sample standard deviation over the seeds; None for a single value."""
        metric = metric or self.main_metric
        values = self.metrics[metric]
        return statistics.stdev(values) if len(values) > 1 else self.stds.get(metric)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value != {}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Evaluation:
        """The inverse of `to_json`. Also reads an item of version 0.1's `evaluation.json`, a single number."""
        fields = dict(value)
        if "metric" not in fields:
            return cls(**fields)
        metric, hub = fields.pop("metric"), fields.pop("hub", True)
        mean, base, std = ({metric: fields.pop(name, None)} for name in ("value", "base_value", "std"))
        run: dict[str, Any] = {name: fields.pop(name) for name in ("date", "revision") if name in fields}
        return cls(
            **fields,
            metrics={metric: [mean[metric]]},
            base=base if base[metric] is not None else {},
            stds=std if std[metric] is not None else {},
            run=run if hub else {**run, "data": {"hub": False}},
        )


def describe_run(accelerator: Accelerator, command: str, settings: dict[str, Any], data: Any) -> dict[str, Any]:
    """The `run` of an evaluation that was made here and now."""
    return {
        "command": command,
        "settings": settings,
        "data": data,
        **environment(accelerator),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def identity(model: dict[str, Any]) -> dict[str, Any]:
    """What makes a model the same one: its name and weights. A licence may be known online only."""
    return {name: model[name] for name in ("name", "sha256") if name in model}


@dataclass(frozen=True)
class Results:
    """All results of one model."""

    model: dict[str, Any]  # `provenance.base_model` of the fine-tuned or evaluated checkpoint, and its `parameters`
    results: tuple[Evaluation, ...] = ()  # one per task and split

    @classmethod
    def open(cls, folder: Path, model: dict[str, Any]) -> Results:
        """The results of a model that a folder already holds; empty if it holds none.

        Raises:
            ResultsError: it holds those of another model, or its file cannot be read.
        """
        earlier = cls.read(folder) if (folder / FILE).exists() else cls(model)
        if identity(earlier.model) != identity(model):
            raise ResultsError(
                f"`{folder / FILE}` holds results of {identity(earlier.model)}, these are of {identity(model)}. "
                "Give another --output-dir."
            )
        return cls({**earlier.model, **model}, earlier.results)

    def updated(self, results: Iterable[Evaluation]) -> Results:
        """These results, those of the same task and split replaced."""
        new = tuple(results)
        replaced = {(result.task, result.split) for result in new}
        kept = (result for result in self.results if (result.task, result.split) not in replaced)
        return Results(self.model, (*kept, *new))

    @property
    def average(self) -> float | None:
        """The mean of the main metrics of the paper's six tasks, in per cent; None if one of them is missing."""
        # Of MNLI's two splits, matched is the first: it is set last.
        first = {result.task: result for result in reversed(self.results)}
        if not set(PAPER) <= first.keys():
            return None
        return statistics.fmean(first[task].mean() * (1 if task.startswith("squad") else 100) for task in PAPER)

    def to_json(self) -> dict[str, Any]:
        results = [result.to_json() for result in self.results]
        return {"format": FORMAT, "model": self.model, "results": results, "average": self.average}

    def write(self, path: Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Results:
        """Reads a `results.json`, or the one in a folder.

        Raises:
            ResultsError: the file cannot be read or holds no results; the message names the first mistake.
        """
        path = path / FILE if path.is_dir() else path
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResultsError(f"`{path}` cannot be read: {error}. Give the {FILE} of a run.") from error
        try:
            if value.get("format") != FORMAT:
                raise ResultsError(f"its `format` is {value.get('format')!r}; allowed is {FORMAT}")
            return cls(value["model"], tuple(map(Evaluation.from_json, value["results"])))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ResultsError(
                f"These are no results: {error}. Write them with run_glue.py or run_squad.py."
            ) from error
