"""Opens a job of the pruner: a pretrained BERT on text, any model on unlabelled text, or one on its labelled task."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_schubert import SchuBertConfig
from ..conversion import ConversionError, load_for_pretraining, opening, with_our_names
from ..data.spans import pretraining_makers
from ..evaluation.loading import tokenizer_of
from ..evaluation.open_task import open_task
from ..heads import masked_lm
from ..pruning.config import PruningConfig
from ..training.objective import PretrainingObjective
from .arguments import PruneArguments, SettingError
from .job import Job, describe_texts, make_examples
from .unlabelled import open_encoder, outputs_job

MAX_LENGTH = 128
HEADED = ("ForPreTraining", "ForMaskedLM")


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
    model, objective = arguments.model, arguments.objective
    assert model is not None
    if not isinstance(tokenizer, PreTrainedTokenizerBase | None):
        raise SettingError(
            f"`tokenizer` is a {type(tokenizer).__name__}. Give a tokenizer of transformers, such as "
            "`AutoTokenizer.from_pretrained(folder)`, or leave it out where it is beside the model."
        )
    if isinstance(model, PreTrainedModel):
        model = with_our_names(model)
    if arguments.task is not None:
        return _task_job(arguments, model, arguments.task, tokenizer)
    encoder = open_encoder(model, plain=objective == "outputs") if objective in ("auto", "outputs") else None
    if encoder is None and objective != "outputs" and not arguments.columns and not arguments.pairs:
        loaded = with_pretraining_heads(model, must=objective == "pretraining")
        if loaded is not None:
            return _pretraining_job(arguments, model, loaded, config, tokenizer, root)
    return outputs_job(arguments, model, encoder, config, tokenizer, root)


def with_pretraining_heads(model: str | PreTrainedModel, *, must: bool) -> PreTrainedModel | None:
    """The model, where it has a masked-language-model head for pretraining; else None, or an error where it must."""
    if not isinstance(model, str):
        if isinstance(model, PreTrainedModel) and masked_lm(model) is not None:
            return model
        if must:
            raise ConversionError(
                f"`model` is a {type(model).__name__} without a masked-language-model head. Give one with that head, "
                'or match its outputs on text without labels: `objective="outputs"`.'
            )
        return None
    if not must:
        with opening(model):
            names = SchuBertConfig.from_pretrained(model).architectures
        if names and not names[0].endswith(HEADED):  # the first BERTs name no class
            return None
    try:
        return load_for_pretraining(model, dtype=torch.float32)
    except ConversionError:
        if must:
            raise
        return None


def _pretraining_job(
    arguments: PruneArguments,
    model: str | PreTrainedModel,
    loaded: PreTrainedModel,
    config: PruningConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    root: Path | None,
) -> Job:
    """A BERT with its pretraining heads, on text."""
    if tokenizer is None:
        tokenizer = tokenizer_of(model)
    max_length = arguments.max_length or min(MAX_LENGTH, loaded.config.max_position_embeddings)
    form = {"tokenizer": tokenizer, "max_length": max_length, "seed": config.seed}
    train, held_out = make_examples(arguments, config, pretraining_makers(loaded), **form)
    return Job(
        model=loaded,
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        objective=PretrainingObjective,
        collator=None,
        max_length=max_length,
        **describe_texts(arguments, root),
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
