"""A task with its examples, in the form in which fine-tuning, evaluation and pruning take it: GLUE or SQuAD alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset

from ..data.stream import Collator
from ..errors import EvaluationDataError
from ..training.objective import Objective
from .objectives import TaskObjective

# Accelerator, objective, examples per forward pass -> metrics by split, the main one first.
Evaluate = Callable[[Accelerator, Objective, int], dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Origin:
    """Where examples come from, for results and pages.

    Attributes:
        dataset, config: names on the Hub; the official set, whether or not it was read from there.
        data: the local folder or file by its last part; None for the Hub.
    """

    dataset: str
    config: str | None
    data: str | None = None

    @classmethod
    def of(cls, dataset: str, config: str | None, data: Path | None) -> Origin:
        return cls(dataset, config, None if data is None else data.resolve().name)

    def describe(self) -> dict[str, Any]:
        """As `provenance.source` describes texts."""
        found: dict[str, Any] = {"name": self.dataset, "hub": True}
        if self.config is not None:
            found["config"] = self.config
        return found


@dataclass(frozen=True)
class EvaluationSplit:
    """One split that is evaluated.

    Attributes:
        name: on the Hub.
        examples: how many are evaluated.
        notes: what must stand beside every number from it; None for the whole official split.
    """

    name: str
    examples: int
    notes: str | None = None


@dataclass(frozen=True)
class TaskExamples:
    """A task.

    Attributes:
        name: ours.
        task_type: the Hub's name of the kind of task.
        origin: of the examples.
        head: of the model, see `load_for_task`.
        labels: names of the classes; None for a regression or answers.
        objective: the head's loss.
        collator: makes batches of the examples.
        train: encoded examples to train on; None where there is only evaluation.
        held_out: encoded examples with labels, for the loss.
        evaluate: runs every example through a model and computes the metrics of every split.
        splits: what is evaluated, the main one first.
        max_length: word pieces per example.
        train_examples: how many there are to train on, before they are cut into windows.
        train_notes: what must stand beside every number of a model that was trained on `train`.
        details: settings that a reader of the numbers needs.
    """

    name: str
    task_type: str
    origin: Origin
    head: str
    labels: tuple[str, ...] | None
    objective: type[TaskObjective]
    collator: Collator
    train: Dataset | None
    held_out: Dataset
    evaluate: Evaluate
    splits: tuple[EvaluationSplit, ...]
    max_length: int
    train_examples: int | None = None
    train_notes: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of the number of training examples and a hundred of them; of those evaluated where none are trained on."""
        examples = self.held_out if self.train is None else self.train
        chosen = range(0, len(examples), max(1, len(examples) // 100))
        content = json.dumps([len(examples), [examples[number] for number in chosen]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def slice_examples(
    examples: Dataset, most: int | None, *, official: int | None, split: str
) -> tuple[Dataset, str | None]:
    """The first `most` examples, and what must be said where they are not the official split.

    Args:
        examples: of a split.
        most: how many, at most; None: all.
        official: how many the official split has; None if unknown.
        split: its name.

    Raises:
        EvaluationDataError: there are none, or `most` is not positive.
    """
    if most is not None and most < 1:
        raise EvaluationDataError(f"At most {most} examples of `{split}` were asked for; allowed is at least 1.")
    if not len(examples):
        raise EvaluationDataError(f"`{split}` is empty. Give at least one example.")
    if most is not None and len(examples) > most:
        examples = examples.select(range(most))
    if official is None or len(examples) == official:
        return examples, None
    return examples, f"{len(examples):,} of {official:,} examples of {split}"
