"""A fine-tuned model with the task that it was fine-tuned on, for a run that prunes it there."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import EvaluationDataError
from .glue import open_glue
from .loading import check_for_task, load_for_task, tokenizer_of
from .squad import SquadConfig, open_squad
from .squad_data import SQUADS
from .task_examples import TaskExamples
from .tasks import TASKS, plain_name


def open_task(
    name: str,
    model: str | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Path | None = None,
    max_length: int | None = None,
    max_train_examples: int | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, TaskExamples]:
    """A fine-tuned model, its tokenizer, and the examples of its task, training examples included.

    Args:
        name: a task of GLUE, or one of the SQuADs.
        model: a folder, a name on the Hub, or a model in memory, with the head of the task.
        tokenizer: of the model; by default the one beside the checkpoint.
        data: folder with the official files; None: the Hub.
        max_length: word pieces per example; None: 128, and 384 for the SQuADs.
        max_train_examples: limit of the training examples; the first are taken.

    Raises:
        EvaluationDataError: there is no such task, or its data is not as it should be.
        ConversionError: the model cannot be opened, or has no trained head for the task.
    """
    squad, glue = SQUADS.get(name), TASKS.get(plain_name(name))
    if squad is None and glue is None:
        raise EvaluationDataError(
            f"`task` is {name!r}; a model is pruned on one task: allowed is one of {', '.join((*TASKS, *SQUADS))}."
        )
    head, labels = ("SequenceClassification" if squad is None else "QuestionAnswering"), glue.labels if glue else None
    if isinstance(model, PreTrainedModel):
        loaded = check_for_task(model, head, labels)
    else:
        loaded = load_for_task(model, head, labels, trained=True)
    if tokenizer is None:
        tokenizer = tokenizer_of(model)
    if squad is not None:
        config = SquadConfig() if max_length is None else SquadConfig(max_length=max_length)
        examples = open_squad(squad, tokenizer, config, data=data, max_train_examples=max_train_examples)
    else:
        assert glue is not None
        length = max_length or 128
        examples = open_glue(glue, tokenizer, data=data, max_length=length, max_train_examples=max_train_examples)
    return loaded, tokenizer, examples
