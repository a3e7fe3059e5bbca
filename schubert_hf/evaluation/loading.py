"""Any BERT or SchuBERT checkpoint, with the head of a task: the checkpoint's own, or a fresh one from a seed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..configuration_schubert import SchuBertConfig
from ..conversion import ConversionError
from ..modeling_schubert import SchuBertForSequenceClassification, SchuBertLoadError, SchuBertPreTrainedModel
from ..training.progress import quiet
from ..training.tokenizer import require_special_tokens

logger = logging.getLogger(__name__)
HEADS = ("classifier", "qa_outputs")


def load_for_task(
    name_or_path: str | Path,
    head: type[SchuBertPreTrainedModel],
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    evaluate_only: bool = False,
) -> SchuBertPreTrainedModel:
    """A checkpoint with the head of a task.

    A head that the checkpoint has for these very labels is kept, its outputs brought into their order. To be trained,
    another one is replaced, and a missing one made, like a missing pooler, from the seed alone.

    Args:
        name_or_path: a folder, or a model on the Hub.
        head: `SchuBertForSequenceClassification` or `SchuBertForQuestionAnswering`.
        labels: the classes, in order; None: a regression, or the head has none.
        seed: of what is made afresh; torch's own generators are neither read nor moved.
        evaluate_only: the model is not going to be trained, so nothing in it may be fresh.

    Returns:
        In float32, with `num_labels`, `id2label`, `label2id` and `problem_type` of the task.

    Raises:
        ConversionError: nothing can be opened there, or, to be evaluated, it has no head for these labels.
        SchuBertConfigError, SchuBertLoadError: no BERT, or no whole one.
    """
    settings = _settings(head, labels)
    try:
        # In both calls: what is made afresh must not depend on what was drawn before.
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            own = SchuBertConfig.from_pretrained(name_or_path)
            model, loaded = head.from_pretrained(
                name_or_path, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **settings
            )
            fresh = _fresh_modules(loaded)
            names = _names(own) if head is SchuBertForSequenceClassification and not fresh & set(HEADS) else None
            order = _order(names, labels)
            if names is not None and order is None and not evaluate_only:
                _start_afresh(model.classifier, model.config.initializer_range)
    except OSError as error:
        raise ConversionError(
            f"`{name_or_path}` cannot be opened: {str(error).splitlines()[0]} "
            "Give a folder with a config.json and safetensors, or a model's name on the Hub."
        ) from error
    if evaluate_only and fresh:
        raise ConversionError(_no_head(name_or_path, head, loaded, own, labels))
    replaced = bool(loaded["mismatched_keys"]) or (names is not None and order is None)
    if replaced:
        if evaluate_only:
            raise ConversionError(
                f"The head of `{name_or_path}` is for the labels {names}, the task's are {list(labels or ())}. "
                "Give a checkpoint that was fine-tuned on this task, or fine-tune this one."
            )
        logger.warning("The head of %s is for the labels %s: a fresh one takes its place.", name_or_path, _names(own))
    elif fresh:
        logger.info("%s has no %s: made from seed %d.", name_or_path, " and ".join(sorted(fresh)), seed)
    if order is not None:
        _reorder(model.classifier, order)
    found: SchuBertPreTrainedModel = model
    return found


def load_tokenizer(
    name_or_path: str | Path, model: SchuBertPreTrainedModel, *, max_length: int
) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, held against the model.

    Raises:
        ConversionError: there is none, it has more word pieces than the model, or the model has fewer positions than
            `max_length`.
        TokenizerError: it lacks a special token.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"`{name_or_path}` has no tokenizer: {str(error).splitlines()[0]} {_SAVE_ONE}"
        ) from error
    # Where there are no files, transformers makes one that knows no words.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ConversionError(f"`{name_or_path}` has no tokenizer beside its weights. {_SAVE_ONE}")
    require_special_tokens(tokenizer)
    if len(tokenizer) > model.config.vocab_size:
        raise ConversionError(
            f"The tokenizer of `{name_or_path}` has {len(tokenizer)} word pieces, its model "
            f"{model.config.vocab_size}. Give a checkpoint whose tokenizer is its own."
        )
    positions = model.config.max_position_embeddings
    if not tokenizer.num_special_tokens_to_add(pair=True) < max_length <= positions:
        raise ConversionError(
            f"`max_length` is {max_length}; `{name_or_path}` has {positions} positions, and a pair needs more than "
            f"{tokenizer.num_special_tokens_to_add(pair=True)}."
        )
    return tokenizer


_SAVE_ONE = "Save one into the folder: `AutoTokenizer.from_pretrained(base).save_pretrained(folder)`."


def _settings(head: type[SchuBertPreTrainedModel], labels: Sequence[str] | None) -> dict[str, Any]:
    if head is not SchuBertForSequenceClassification:
        return {}
    if labels is None:
        return {"id2label": {0: "score"}, "label2id": {"score": 0}, "num_labels": 1, "problem_type": "regression"}
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: number for number, name in enumerate(labels)},
        "num_labels": len(labels),
        "problem_type": "single_label_classification",
    }


def _fresh_modules(loaded: dict[str, Any]) -> set[str]:
    """The modules that the checkpoint did not fill, e.g. {"classifier", "pooler"}."""
    mismatched = {key[0] for key in loaded["mismatched_keys"]}
    return {key.removeprefix("bert.").split(".")[0] for key in {*loaded["missing_keys"], *mismatched}}


def _names(config: SchuBertConfig) -> list[str]:
    return [str(config.id2label[number]) for number in sorted(config.id2label)]


def _order(names: list[str] | None, labels: Sequence[str] | None) -> list[int] | None:
    """Where in the checkpoint's head the task's labels are; None: it has others, or no head."""
    if names is None:
        return None
    if labels is None or all(name.upper() == f"LABEL_{number}" for number, name in enumerate(names)):
        return list(range(len(names)))  # nameless: taken to be in the official order
    known = [name.lower() for name in names]
    wanted = [label.lower() for label in labels]
    return [known.index(label) for label in wanted] if sorted(known) == sorted(wanted) else None


@torch.no_grad()
def _reorder(layer: nn.Linear, order: list[int]) -> None:
    layer.weight.copy_(layer.weight[order].clone())
    layer.bias.copy_(layer.bias[order].clone())


@torch.no_grad()
def _start_afresh(layer: nn.Linear, std: float) -> None:
    layer.weight.normal_(0.0, std)
    layer.bias.zero_()


def _no_head(
    name: str | Path,
    head: type[SchuBertPreTrainedModel],
    loaded: dict[str, Any],
    config: SchuBertConfig,
    labels: Sequence[str] | None,
) -> str:
    if loaded["mismatched_keys"]:
        return (
            f"The head of `{name}` has {config.num_labels} outputs, the task needs {len(labels) if labels else 1}. "
            "Give a checkpoint that was fine-tuned on this task, or fine-tune this one."
        )
    return (
        f"`{name}` has no trained {' and '.join(sorted(_fresh_modules(loaded)))}, so nothing that {head.__name__} "
        "could be evaluated by. Fine-tune it first."
    )


__all__ = ["ConversionError", "SchuBertLoadError", "load_for_task", "load_tokenizer"]
