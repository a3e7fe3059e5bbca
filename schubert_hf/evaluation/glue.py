"""A task of GLUE, ready to be trained on and evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.sources import first_line
from ..data.stream import Collator
from ..errors import MetricError
from ..training.objective import Objective
from .encoding import TaskCollator, encode
from .glue_data import load_task
from .metrics import load_metric
from .objectives import ClassificationObjective, RegressionObjective
from .predicting import predict
from .task_examples import EvaluationSplit, Origin, TaskExamples, slice_examples
from .tasks import Task


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
        max_train_examples, max_eval_examples: the first so many of a split.
        train: read the training split, too.
        metrics: more than the task's own, by name.

    Raises:
        EvaluationDataError: the data cannot be had, or is not the task's.
        MetricError: a metric is not known, or is none for the labels of this task.
    """
    for name in metrics:
        _try_metric(name, task)  # says now what it would say after the training
    names = (*task.metrics, *(name for name in metrics if name not in task.metrics))
    raw = load_task(task, data, train=train)
    notes: dict[str, str | None] = {}
    encoded: dict[str, Dataset] = {}
    for split in task.splits:
        if split.name in raw:
            most = max_train_examples if split is task.train else max_eval_examples
            part, notes[split.name] = slice_examples(
                raw[split.name], most, official=split.examples, split=f"{task.name} {split.name}"
            )
            encoded[split.name] = encode(part, task.columns, tokenizer, max_length=max_length)
    collator = TaskCollator(tokenizer)
    validation = {split.name: encoded[split.name] for split in task.validation if split.name in encoded}
    main = task.validation[0].name
    return TaskExamples(
        name=task.name,
        task_type=task.task_type,
        origin=Origin.of(task.dataset, task.name, data),
        head="SequenceClassification",
        labels=task.labels,
        objective=RegressionObjective if task.labels is None else ClassificationObjective,
        collator=collator,
        train=encoded.get(task.train.name),
        held_out=validation[main],
        evaluate=partial(_evaluate, splits=validation, metrics=names, collator=collator, name=task.name),
        splits=tuple(EvaluationSplit(name, len(part), notes[name]) for name, part in validation.items()),
        max_length=max_length,
        train_examples=len(encoded[task.train.name]) if train else None,
        train_notes=notes.get(task.train.name),
    )


def _try_metric(name: str, task: Task) -> None:
    values = [0.25, 1.5] if task.labels is None else list(range(len(task.labels)))
    try:
        load_metric(name).compute(predictions=values, references=values)
    except MetricError as error:
        raise MetricError(f"The metric `{name}` does not suit {task.name}: {error}") from error
    except (ValueError, TypeError, KeyError) as error:  # whatever a metric of the user's own raises
        raise MetricError(
            f"The metric `{name}` does not suit {task.name}: {first_line(error)} Give another one."
        ) from error


def _evaluate(
    accelerator: Accelerator,
    objective: Objective,
    batch_size: int,
    *,
    splits: dict[str, Dataset],
    metrics: Sequence[str],
    collator: Collator,
    name: str,
) -> dict[str, dict[str, float]]:
    """Every metric of every split, by the names that the metrics give their numbers."""
    found: dict[str, dict[str, float]] = {}
    for split, examples in splits.items():
        (rows,) = predict(
            accelerator, objective, examples, collator, batch_size=batch_size, description=f"{name} {split}"
        ).values()
        logits = torch.stack(rows)  # (examples, labels)
        regression = isinstance(objective, RegressionObjective)
        predictions = (logits[:, 0] if regression else logits.argmax(-1)).tolist()
        references = list(examples["labels"])
        found[split] = {}
        for metric in metrics:
            found[split] |= load_metric(metric).compute(predictions=predictions, references=references)
    return found
