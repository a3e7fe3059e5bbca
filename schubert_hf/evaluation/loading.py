"""A checkpoint with the head of a task, and its tokenizer: checked before training starts."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .. import modeling_schubert
from ..anatomy import place_of_tensor
from ..configuration_schubert import SchuBertConfig
from ..conversion import ConversionError, load, opening
from ..data.sources import first_line
from ..heads import heads
from ..modeling_schubert import SchuBertModel
from ..pruning.checks import own_copy
from ..run.progress import quiet

logger = logging.getLogger(__name__)


def load_as_saved(name_or_path: str | os.PathLike[str]) -> PreTrainedModel:
    """A checkpoint as the class that it names, in float32; without a pooler that it holds no weights of.

    Raises:
        ConversionError: nothing can be opened there, or the class has no counterpart.
        SchuBertConfigError, SchuBertLoadError: as `from_pretrained`.
    """
    with opening(name_or_path), torch.random.fork_rng(devices=[]), quiet():
        opened: Any = load(name_or_path, dtype=torch.float32, output_loading_info=True)
    loaded, information = opened
    if isinstance(loaded, SchuBertModel) and any(key.startswith("pooler.") for key in information["missing_keys"]):
        loaded.pooler, loaded.config.add_pooling_layer = None, False
    found: PreTrainedModel = loaded
    return found


def load_for_task(
    name_or_path: str | os.PathLike[str],
    head: str,
    labels: Sequence[str] | None = None,
    *,
    trained: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """Any BERT or SchuBERT checkpoint with the head of a task, in float32.

    A head, and a pooler, that the checkpoint lacks is fresh, the same for the same seed. Where the checkpoint's head
    knows the same labels in another order, its rows are put into the order of `labels`.

    Args:
        name_or_path: a folder, or a name on the Hub.
        head: "SequenceClassification" or "QuestionAnswering".
        labels: names of the classes, in the task's order; None for a regression, or where the head has none.
        trained: the checkpoint must hold the trained head.
        seed: of fresh weights.

    Raises:
        ConversionError: nothing can be opened there; or `trained`, and there is no such head, or one of other labels.
        SchuBertConfigError, SchuBertLoadError: as `from_pretrained`.
    """
    names, fields = list(labels or []), {}
    if head == "SequenceClassification":
        fields = _label_fields(names)
    # Fresh weights are drawn from the global generator, which is the caller's.
    with opening(name_or_path), torch.random.fork_rng(devices=[]), quiet():
        known = SchuBertConfig.from_pretrained(name_or_path)
        torch.manual_seed(seed)
        model, loaded = getattr(modeling_schubert, f"SchuBertFor{head}").from_pretrained(
            name_or_path, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **fields
        )
    fresh = any(place_of_tensor(key).row.part == "head" for key in loaded["missing_keys"])
    if trained and (fresh or loaded["mismatched_keys"]):
        what = f"no trained head for {head}" if fresh else f"a head of {known.num_labels} labels"
        raise ConversionError(
            f"`{name_or_path}` has {what}; the task needs one{f' of {len(names)} labels' if names else ''}. "
            "Fine-tune it first, with examples/run_glue.py or examples/run_squad.py."
        )
    if fresh or loaded["mismatched_keys"]:
        _warn_of_fresh_head(str(name_or_path))
    elif names:
        _match_labels(model, known, names, str(name_or_path), None if trained else seed)
    found: PreTrainedModel = model
    return found


def check_for_task(model: PreTrainedModel, head: str, labels: Sequence[str] | None = None) -> PreTrainedModel:
    """The same for a model in memory with a trained head: a copy as a SchuBERT in float32.

    Raises:
        ConversionError: it has another head, or one of other labels.
    """
    names, kind = list(labels or []), type(model).__name__
    classes = len(names) or 1
    sized = head != "SequenceClassification" or model.config.num_labels == classes
    if not kind.endswith(f"For{head}") or not sized:
        size = f" of {classes} labels" if head == "SequenceClassification" else ""
        own = f" of {model.config.num_labels} labels" if not sized and kind.endswith(f"For{head}") else ""
        raise ConversionError(
            f"`model` is a {kind}{own}; the task needs a trained head for {head}{size}. Give a model that was "
            "fine-tuned on this task."
        )
    copied = own_copy(model)
    if names:
        _match_labels(copied, model.config, names, kind, None)
    if head == "SequenceClassification":
        for name, value in _label_fields(names).items():
            setattr(copied.config, name, value)
    return copied


@functools.cache  # once for each checkpoint, however many seeds and tasks there are
def _warn_of_fresh_head(source: str) -> None:
    logger.warning("%s has no head for this task: a fresh one is trained.", source)


def _label_fields(names: Sequence[str]) -> dict[str, Any]:
    """What a config says of a classifier's labels; of none, it is a regression."""
    shown = names or ["LABEL_0"]
    return {
        "id2label": dict(enumerate(shown)),
        "label2id": {label: number for number, label in enumerate(shown)},
        "problem_type": "single_label_classification" if names else "regression",
    }


def _match_labels(model: Any, known: SchuBertConfig, names: list[str], source: str, seed: int | None) -> None:
    """Puts the rows of a head whose labels have names into the order of `names`.

    Where they are others, the head is that of another task: fresh weights take its place, or, without a seed to draw
    them from, it is an error.
    """
    own = [str(known.id2label[number]).lower() for number in range(len(names))]
    wanted = [name.lower() for name in names]
    if own == wanted or all(label.startswith("label_") for label in own):
        return
    (head,) = heads(model)
    with torch.no_grad():
        if sorted(own) == sorted(wanted):
            for parameter in head.parameters():
                parameter.copy_(parameter[[own.index(label) for label in wanted]])
            return
        if seed is None:
            raise ConversionError(
                f"`{source}` was trained for the labels {own}; the task has {wanted}. Give a checkpoint that was "
                "fine-tuned on this task, or correct `id2label` in its config.json."
            )
        _warn_of_fresh_head(source)
        head.weight.normal_(0.0, model.config.initializer_range, generator=torch.Generator().manual_seed(seed))
        head.bias.zero_()


def load_tokenizer(
    name_or_path: str | os.PathLike[str], config: SchuBertConfig | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer beside a checkpoint.

    Args:
        name_or_path: a folder, or a name on the Hub.
        config: of the model, which must have an embedding for every word piece; by default the checkpoint's own.

    Returns:
        The tokenizer; it gives no `token_type_ids` where the model has one segment only.

    Raises:
        ConversionError: there is none, it needs a package that is missing, or it knows more word pieces than the
            model.
        SchuBertConfigError: the checkpoint is no BERT.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name_or_path)
    # The last two: some tokenizers without their files.
    except (OSError, ValueError, ImportError, TypeError, AttributeError) as error:
        why = first_line(error)
        if isinstance(error, ImportError):  # what to install may be in any of its lines
            why = " ".join(str(error).split())
        if "tiktoken" in why:  # which transformers tries where it cannot read a SentencePiece model, and asks for
            why = "its SentencePiece model is read by a package that is missing. `pip install sentencepiece protobuf`."
        raise ConversionError(f"`{name_or_path}` has no tokenizer beside its weights that opens: {why}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one of nothing, without a word
        raise ConversionError(
            f"`{name_or_path}` has no tokenizer beside its weights. Save it there with `tokenizer.save_pretrained`, "
            "or from Python give `tokenizer`."
        )
    if config is None:
        with opening(name_or_path):
            config = SchuBertConfig.from_pretrained(name_or_path)
    if len(tokenizer) > config.vocab_size:
        raise ConversionError(
            f"The tokenizer of `{name_or_path}` has {len(tokenizer)} word pieces, the model {config.vocab_size} "
            "embeddings. Give the tokenizer that it was trained with."
        )
    if config.type_vocab_size < 2:
        names = tokenizer.model_input_names
        tokenizer.model_input_names = [name for name in names if name != "token_type_ids"]
    return tokenizer


def tokenizer_of(model: str | PreTrainedModel) -> PreTrainedTokenizerBase:
    """`load_tokenizer` of a checkpoint, or of the one that a model in memory was loaded from.

    Raises:
        ConversionError: there is none.
    """
    if isinstance(model, str):
        return load_tokenizer(model)
    if not model.name_or_path:
        raise ConversionError(
            f"`model` is a {type(model).__name__} in memory that was loaded from no checkpoint, so its tokenizer is "
            "not known. Give `tokenizer`."
        )
    return load_tokenizer(model.name_or_path, model.config)
