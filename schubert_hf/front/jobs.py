"""A job of the pruner: what is pruned, on which examples, by which loss; a pretrained BERT on text, or a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..anatomy import masked_lm
from ..conversion import ConversionError, load_for_pretraining
from ..data.pairs import make_pairs
from ..data.stream import Collator
from ..data.streaming import StreamedPairs
from ..data.text import held_out_documents, load_documents, not_held_out, split_documents, stream_documents
from ..evaluation.loading import tokenizer_of
from ..evaluation.open_task import open_task
from ..pruning.config import PruningConfig
from ..run.provenance import base_model, source
from ..training.objective import Objective, PretrainingObjective
from .arguments import PruneArguments

KEPT_APART = {"name": "documents kept apart from the training text"}


class Job(NamedTuple):
    """What is pruned, on which examples, by which loss; and what its page says of them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Dataset | StreamedPairs
    held_out: Dataset
    objective: Callable[[PreTrainedModel], Objective]
    collator: Collator | None  # None: pairs are masked
    max_length: int
    train_data: dict[str, Any]
    eval_data: dict[str, Any]


def open_job(
    arguments: PruneArguments,
    config: PruningConfig,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    root: Path | None = None,
) -> Job:
    """Opens the model, its tokenizer and its examples.

    Args:
        tokenizer: of the model; by default the one beside the checkpoint.
        root: files in this folder are named by their path in it.

    Raises:
        SchuBertError: one of them cannot be opened, or they do not suit each other.
    """
    assert arguments.model is not None
    if arguments.task is not None:
        return _task_job(arguments, arguments.model, arguments.task, tokenizer)
    return _text_job(arguments, arguments.model, config, tokenizer, root)


def describe_base(model: str | PreTrainedModel, root: Path | None = None) -> dict[str, Any]:
    """What a page says of the model that was pruned."""
    if isinstance(model, str):
        return base_model(model, root=root)
    name = str(model.name_or_path)
    if not name or (not Path(name).exists() and (Path(name).is_absolute() or name.count("/") > 1)):
        return {"name": Path(name).name or type(model).__name__, "hub": False}
    # Its weights need not be those of the checkpoint any more.
    return {field: value for field, value in base_model(name, root=root).items() if field != "sha256"}


def _text_job(
    arguments: PruneArguments,
    model: str | PreTrainedModel,
    config: PruningConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    root: Path | None,
) -> Job:
    """A BERT with its pretraining heads, on text."""
    text = arguments.source
    loaded = load_for_pretraining(model, dtype=torch.float32) if isinstance(model, str) else model
    if masked_lm(loaded) is None:
        raise ConversionError(
            f"`model` is a {type(model).__name__} without a masked-language-model head, so text gives no loss to "
            'prune it by. Give one with that head, or prune a fine-tuned model on its task: `task="sst2"`.'
        )
    if tokenizer is None:
        tokenizer = tokenizer_of(model)
    form: dict[str, Any] = {"max_length": arguments.max_length or 128, "seed": config.seed}
    make = _stream_pairs if arguments.streaming else _load_pairs
    train, held_out = make(arguments, tokenizer, config, form)
    named = {"config": arguments.dataset_config} if arguments.dataset_config else {}
    return Job(
        model=loaded,
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        objective=PretrainingObjective,
        collator=None,
        max_length=form["max_length"],
        train_data={**_describe_text(text, root), **named},
        eval_data=KEPT_APART if arguments.eval_text is None else _describe_text(arguments.eval_text, root),
    )


def _task_job(
    arguments: PruneArguments, model: str | PreTrainedModel, task: str, tokenizer: PreTrainedTokenizerBase | None
) -> Job:
    """A fine-tuned model, on its task."""
    loaded, tokenizer, examples = open_task(
        task,
        model,
        tokenizer=tokenizer,
        data=Path(arguments.data) if arguments.data else None,
        max_length=arguments.max_length,
        max_train_examples=arguments.max_train_examples,
    )
    assert examples.train is not None
    return Job(
        model=loaded,
        tokenizer=tokenizer,
        train=examples.train,
        held_out=examples.held_out,
        objective=examples.objective,
        collator=examples.collator,
        max_length=examples.max_length,
        train_data=examples.source,
        eval_data={**examples.source, "split": examples.splits[0]},
    )


def _load_pairs(
    arguments: PruneArguments, tokenizer: PreTrainedTokenizerBase, config: PruningConfig, form: dict[str, Any]
) -> tuple[Dataset, Dataset]:
    """Training and held-out sentence pairs."""
    documents = load_documents(arguments.source, config=arguments.dataset_config)
    if arguments.eval_text is not None:
        held_out = load_documents(arguments.eval_text)
    else:
        documents, held_out = split_documents(documents, held_out=config.eval_examples, seed=config.seed)
    return make_pairs(documents, tokenizer, **form), make_pairs(held_out, tokenizer, **form)


def _stream_pairs(
    arguments: PruneArguments, tokenizer: PreTrainedTokenizerBase, config: PruningConfig, form: dict[str, Any]
) -> tuple[StreamedPairs, Dataset]:
    """The same, training pairs made as they are needed."""
    documents = stream_documents(arguments.source, config=arguments.dataset_config)
    if arguments.eval_text is not None:
        held_out = load_documents(arguments.eval_text)
    else:
        held_out = held_out_documents(documents, config.eval_examples)
    wanted = None if arguments.eval_text is not None else not_held_out
    return StreamedPairs(documents, tokenizer, wanted=wanted, **form), make_pairs(held_out, tokenizer, **form)


def _describe_text(text: Any, root: Path | None) -> dict[str, Any]:
    if isinstance(text, str):
        return source(text, root=root)
    return {"name": f"{len(text):,} documents given in memory", "hub": False}
