"""A task with its examples, in the form in which fine-tuning, evaluation and pruning take it: GLUE or SQuAD alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset

from ..data.stream import Collator, digest
from ..errors import EvaluationDataError
from ..training.objective import Objective
from .objectives import TaskObjective

# Accelerator, objective, examples per forward pass -> metrics by split, the main one first.
Evaluate = Callable[[Accelerator, Objective, int], dict[str, dict[str, float]]]


@dataclass(frozen=True)
class TaskExamples:
    """A task.

    Attributes:
        name: ours.
        dataset, config: names on the Hub of the official data set, whether or not it was loaded from there.
        data: the folder with the official files; None for the Hub.
        labels: names of the classes; None for a regression or answers.
        objective: the head, and its loss.
        collator: makes batches of the examples.
        train: encoded examples to train on; None where there is only evaluation.
        held_out: encoded examples of the main split that is evaluated, for the loss.
        evaluate: runs every example through a model and computes the metrics of every split.
        sizes: by split, the number of examples that are used and of those in the whole official split: `train`, if it
            is trained on, then those that are evaluated, the main one first. Windows of one question count once.
        max_length: word pieces per example.
        details: settings that a reader of the numbers needs.
    """

    name: str
    dataset: str
    config: str | None
    data: Path | None
    labels: tuple[str, ...] | None
    objective: type[TaskObjective]
    collator: Collator
    train: Dataset | None
    held_out: Dataset
    evaluate: Evaluate
    sizes: dict[str, tuple[int, int]]
    max_length: int
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """Of the model, see `load_for_task`."""
        return self.objective.head

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that are evaluated, the main one first."""
        return tuple(name for name in self.sizes if name != "train")

    @property
    def source(self) -> dict[str, Any]:
        """The data set, as `provenance.source` describes texts."""
        return {"name": self.dataset, "hub": True} | ({"config": self.config} if self.config else {})

    @property
    def digest(self) -> str:
        """Of the number of training examples and a hundred of them; of those evaluated if none are trained on."""
        examples = self.held_out if self.train is None else self.train
        chosen = range(0, len(examples), max(1, len(examples) // 100))
        return digest([{"examples": len(examples)}, *(examples[number] for number in chosen)])[:16]

    def notes(self, *splits: str) -> str | None:
        """What must stand beside numbers that come from these splits; None if they are whole official ones."""
        sizes = {split: self.sizes[split] for split in splits}
        sliced = [
            f"{used:,} of {official:,} examples of {self.name} {split}"
            for split, (used, official) in sizes.items()
            if used != official
        ]
        return f"{'; '.join(sliced)}: not comparable with published results" if sliced else None


def first_examples(examples: Dataset, most: int | None, split: str) -> Dataset:
    """The first `most` examples of a split; None: all.

    Raises:
        EvaluationDataError: there are none, or `most` is not positive.
    """
    if most is not None and most < 1:
        raise EvaluationDataError(f"At most {most} examples of `{split}` were asked for; allowed is at least 1.")
    if not len(examples):
        raise EvaluationDataError(f"`{split}` is empty. Give at least one example.")
    return examples if most is None else examples.select(range(min(most, len(examples))))
