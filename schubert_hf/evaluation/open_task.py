"""A fine-tuned model with the task that it was fine-tuned on, for a run that prunes it there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import EvaluationDataError
from .glue import open_glue
from .loading import load_for_task, load_tokenizer
from .squad import SquadConfig, open_squad
from .squad_data import SQUADS
from .task_examples import TaskExamples
from .tasks import TASKS, Task, find_tasks


@dataclass(frozen=True)
class OpenedTask:
    """A model, its tokenizer, and the examples of its task, training examples included."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: TaskExamples

    @property
    def train_data(self) -> dict[str, Any]:
        """What a page says of the training examples."""
        return self.examples.origin.describe()

    @property
    def eval_data(self) -> dict[str, Any]:
        return {**self.examples.origin.describe(), "split": self.examples.splits[0].name}


def open_task(
    name: str,
    model: str,
    *,
    data: Path | None = None,
    max_length: int | None = None,
    max_train_examples: int | None = None,
) -> OpenedTask:
    """Opens a fine-tuned model and its task.

    Args:
        name: a task of GLUE, or one of the SQuADs.
        model: a folder, or a name on the Hub, with the head of the task.
        data: folder with the official files; None: the Hub.
        max_length: word pieces per example; None: 128, and 384 for the SQuADs.
        max_train_examples: the first so many.

    Raises:
        EvaluationDataError: there is no such task, or more than one; or its data is not as it should be.
        ConversionError: the model cannot be opened, or has no trained head for the task.
    """
    if name in SQUADS:
        loaded = load_for_task(model, "QuestionAnswering", trained=True)
        tokenizer = load_tokenizer(model, loaded.config)
        config = SquadConfig() if max_length is None else SquadConfig(max_length=max_length)
        examples = open_squad(SQUADS[name], tokenizer, config, data=data, max_train_examples=max_train_examples)
        return OpenedTask(loaded, tokenizer, examples)
    task = _one_task(name)
    loaded = load_for_task(model, "SequenceClassification", task.labels, trained=True)
    tokenizer = load_tokenizer(model, loaded.config)
    examples = open_glue(
        task, tokenizer, data=data, max_length=max_length or 128, max_train_examples=max_train_examples
    )
    return OpenedTask(loaded, tokenizer, examples)


def _one_task(name: str) -> Task:
    names = f"{', '.join((*TASKS, *SQUADS))}"
    try:
        tasks = find_tasks(name)
    except EvaluationDataError:
        raise EvaluationDataError(f"`task` is {name!r}; allowed is one of {names}.") from None
    if len(tasks) > 1:
        raise EvaluationDataError(
            f"`task` is {name!r}, which is {len(tasks)} tasks; a model is pruned on one. Give one of {names}."
        )
    return tasks[0]
