"""A task of GLUE, ready to be trained on and evaluated: from the Hub, or from the official files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.sources import first_line
from ..errors import EvaluationDataError, MetricError
from ..training.evaluate import predict
from ..training.objective import Objective
from .encoding import TaskCollator, encode
from .metrics import load_metric
from .objectives import ClassificationObjective, RegressionObjective
from .task_data import find_files, load_from_hub
from .task_examples import TaskExamples, first_examples
from .tasks import DATASET, Task
from .tsv import read_tsv


def open_glue(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    data: Path | None = None,
    max_length: int = 128,
    max_train_examples: int | None = None,
    max_eval_examples: int | None = None,
    train: bool = True,
    metrics: Sequence[str] = (),
) -> TaskExamples:
    """Reads and encodes a task.

    Args:
        task: see `tasks.TASKS`.
        tokenizer: of the model.
        data: folder with the official files; None: the Hub.
        max_length: word pieces per example.
        max_train_examples, max_eval_examples: limits of the examples of a split; the first are taken.
        train: whether to read the training split.
        metrics: additional metrics, by name.

    Raises:
        EvaluationDataError: the data cannot be loaded, or is not the task's.
        MetricError: a metric is not known, or does not suit the labels of this task.
    """
    for metric in metrics:
        _try_metric(metric, task)  # before training, not after it
    encoded: dict[str, Dataset] = {}
    for split, examples in load_task(task, data, train=train).items():
        most = max_train_examples if split == "train" else max_eval_examples
        part = first_examples(examples, most, f"{task.name} {split}")
        encoded[split] = encode(part, task.columns, tokenizer, max_length=max_length)
    collator = TaskCollator(tokenizer)
    names = dict.fromkeys([*task.metrics, *metrics])

    def evaluate(accelerator: Accelerator, objective: Objective, batch_size: int) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for split in task.validation:
            if split in encoded:
                label = f"{task.name} {split}"
                (rows,) = predict(
                    accelerator, objective, encoded[split], collator, batch_size=batch_size, description=label
                ).values()
                logits = torch.stack(rows)  # (examples, labels)
                predictions = (logits[:, 0] if task.labels is None else logits.argmax(-1)).tolist()
                pair = {"predictions": predictions, "references": list(encoded[split]["labels"])}
                found[split] = {
                    key: value for name in names for key, value in load_metric(name).compute(**pair).items()
                }
        return found

    return TaskExamples(
        name=task.name,
        dataset=DATASET,
        config=task.name,
        data=data,
        labels=task.labels,
        objective=RegressionObjective if task.labels is None else ClassificationObjective,
        collator=collator,
        train=encoded.get("train"),
        held_out=encoded[task.validation[0]],
        evaluate=evaluate,
        sizes={split: (len(examples), task.splits[split]) for split, examples in encoded.items()},
        max_length=max_length,
    )


def _try_metric(name: str, task: Task) -> None:
    values = [0.25, 1.5] if task.labels is None else list(range(len(task.labels)))
    metric = load_metric(name)
    try:
        metric.compute(predictions=values, references=values)
    except (
        ValueError,
        TypeError,
        KeyError,
    ) as error:  # our MetricError, or whatever a metric of the user's own raises
        raise MetricError(
            f"The metric `{name}` does not suit {task.name}: {first_line(error)} Give another one."
        ) from error


def load_task(task: Task, data: Path | None = None, *, train: bool = True) -> dict[str, Dataset]:
    """The splits of a task.

    Args:
        task: see `TASKS`.
        data: a folder in the official layout, `SST-2/train.tsv` and so on, or the task's own folder. None: the Hub.
        train: whether to read the training split.

    Returns:
        By the split's name on the Hub, training first: the columns `task.columns` and `label`, an int in the order
        of `task.labels` or a float. Test splits have no labels and are never read.

    Raises:
        EvaluationDataError: the data cannot be loaded, lacks columns, has foreign labels, or a split is empty.
    """
    wanted = tuple(task.splits) if train else task.validation
    if data is None:
        return {split: _from_hub(task, split) for split in wanted}
    files = find_files(task.name, _folder(task, data), wanted, "*.tsv", optional=task.validation[1:])
    return {split: read_tsv(task, path) for split, path in files.items()}


def _folder(task: Task, data: Path) -> Path:
    """The folder with the task's files: below `data`, by the official name or ours, or `data` itself."""
    below = sorted(path for path in data.glob("*/") if path.name.lower() in (task.folder.lower(), task.name))
    if not below and data.is_dir() and not any(data.glob("*.tsv")):
        raise EvaluationDataError(
            f"`{data}` has neither a folder {task.folder} nor .tsv files; it has "
            f"{sorted(path.name for path in data.iterdir())}. Give the folder that holds {task.folder}/dev.tsv."
        )
    return below[0] if below else data


def _from_hub(task: Task, split: str) -> Dataset:
    found = load_from_hub(DATASET, task.name, split, [*task.columns, "label"], f"{task.folder}/train.tsv and so on")
    foreign = set(found.unique("label")) - set(range(len(task.labels))) if task.labels is not None else set()
    if foreign:  # -1 stands for "not published"
        raise EvaluationDataError(
            f"`{DATASET}` ({task.name}, {split}) has the labels {sorted(foreign)}; allowed are 0 to "
            f"{len(task.labels or ()) - 1}, {', '.join(task.labels or ())}."
        )
    return found
