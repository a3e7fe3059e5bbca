"""BERT and its relatives -> SchuBERT, the same function, and back where the layers are uniform.

A BERT is a SchuBERT whose layers happen to be alike, with h = a k and k = v. What other families name differently is
in `families`. Loading a checkpoint by name needs none of this: `SchuBertFor....from_pretrained` converts.
"""

import contextlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import transformers
from huggingface_hub import is_offline_mode
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.utils import logging

from .auto import MODELS
from .configuration_schubert import LAYER_LISTS, SchuBertConfig
from .errors import SchuBertError
from .families import FAMILIES
from .families.others import REFUSED, refusal
from .modeling_schubert import (
    SchuBertForMaskedLM,
    SchuBertForPreTraining,
    SchuBertLoadError,
    SchuBertModel,
    SchuBertPreTrainedModel,
    read_config,
)

# Fields of a config that no other family's has.
OURS = {"family", "auto_map", "pooler_act", "padding_takes_positions", "add_pooling_layer", "project_embeddings"}
OURS |= set(LAYER_LISTS)
_BY_NAME = {model.__name__: model for model in MODELS.values()}


class ConversionError(SchuBertError):
    """A model that has no counterpart on the other side: raised by `convert_bert`, `to_bert` and `load`."""


def convert_bert(bert: PreTrainedModel, **kwargs: Any) -> SchuBertPreTrainedModel:
    """The SchuBERT class with the head and weights of a model of any family in `FAMILIES`.

    `bert` is left unchanged. For `kwargs` see `SchuBertPreTrainedModel.from_dense`.

    Raises:
        ConversionError: for a class without counterpart, e.g. `BertLMHeadModel`.
        SchuBertLoadError, SchuBertConfigError: for another model, a decoder, relative positions.
    """
    name, model_type = type(bert).__name__, bert.config.model_type
    if model_type in REFUSED:
        raise ConversionError(f"`bert` is a {name}. {refusal(model_type)}")
    family = FAMILIES.get(model_type)
    if family is None and model_type != SchuBertConfig.model_type:
        raise ConversionError(
            f"`bert` is a {name}, of the family {model_type!r}. Allowed are {', '.join(FAMILIES)}: give an encoder "
            "that is built on one of them."
        )
    return _head((family and family.our_class(name)) or name).from_dense(bert, **kwargs)


def with_our_names(model: PreTrainedModel) -> PreTrainedModel:
    """`model` itself where its modules are named as in BERT, else as `convert_bert` makes it.

    Raises:
        ConversionError, SchuBertLoadError, SchuBertConfigError: as `convert_bert`.
    """
    return convert_bert(model) if model.config.model_type not in ("bert", SchuBertConfig.model_type) else model


def to_bert(model: PreTrainedModel) -> PreTrainedModel:
    """The model of the family that `model` was made from that computes the same, where the layers have its shape.

    `model` is left as it is. Its `config.family` decides the class: a SchuBERT made from a RoBERTa gives a RoBERTa.

    Returns:
        transformers' class with the same head, with `model`'s weights, dtype, device and mode.

    Raises:
        ConversionError: the layers differ, or they are alike but break h = a k or k = v; or the family has no such
            head, or no projection of the embeddings.
    """
    config, name = model.config, type(model).__name__
    if config.model_type != SchuBertConfig.model_type:
        raise ConversionError(f"`model` is a {config.model_type!r} model, allowed is 'schubert'.")
    _check_dense_shape(config)
    family = FAMILIES.get(config.family)
    class_name = None if family is None else family.their_class(name, config.family)
    if family is None or class_name is None:
        raise ConversionError(
            f"`model` is a {name} of the family {config.family!r}, which has no such class. Keep the SchuBERT, or "
            "take its encoder: `model.base_model`."
        )
    if config.project_embeddings and not (family.projects and config.embedding_size < config.hidden_size):
        raise ConversionError(
            f"`embedding_size` is {config.embedding_size}, with a projection to `hidden_size` {config.hidden_size}: a "
            f"model of the family {config.family!r} has no such embeddings. Keep the SchuBERT."
        )
    fields = {name: value for name, value in config.to_dict().items() if name not in OURS}
    fields |= {"model_type": config.family, "architectures": None}
    dense_config = CONFIG_MAPPING[config.family].from_dict(family.restore_fields(fields))
    dense_config._attn_implementation = config._attn_implementation
    dense_class = getattr(transformers, class_name)
    tensors = family.tensors_back(model.state_dict(), class_name, config)
    options = {}
    if "add_pooling_layer" in inspect.signature(dense_class.__init__).parameters:
        options["add_pooling_layer"] = any(key.startswith("pooler.") for key in tensors)
    dense: PreTrainedModel = dense_class(dense_config, **options).to(model.dtype)
    dense.load_state_dict(tensors)
    dense.tie_weights()
    return dense.to(model.device).train(model.training)


def load(name_or_path: str | os.PathLike[str], **kwargs: Any) -> SchuBertPreTrainedModel:
    """Open a checkpoint of SchuBERT or of a family in `FAMILIES` as the class that its `architectures` names.

    It is a folder, or a model on the Hub; one that names no class is opened as `SchuBertModel`. `kwargs` are those of
    `from_pretrained`.

    Raises:
        ConversionError: the class that it names has no counterpart.
        SchuBertConfigError, SchuBertLoadError: as `from_pretrained`.
    """
    content, kwargs = read_config(name_or_path, kwargs)
    names = SchuBertConfig.from_dict(content).architectures or [SchuBertModel.__name__]
    return cast(SchuBertPreTrainedModel, _head(names[0]).from_pretrained(name_or_path, **kwargs))


@contextlib.contextmanager
def opening(name_or_path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what is raised where a checkpoint cannot be opened into a ConversionError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ConversionError(f"`{name_or_path}` cannot be opened: {why_not_opened(name_or_path, error)}") from error


def why_not_opened(name_or_path: str | os.PathLike[str], error: Exception) -> str:
    """What is wrong with a checkpoint's name, files or connection, and what to do, as sentences.

    Args:
        error: what transformers or safetensors raised.
    """
    name, text = str(name_or_path), " ".join(str(error).split())
    if isinstance(error, SafetensorError):
        return f"its weights are damaged ({text}). Copy or download them again."
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            return "this folder holds no config.json. Give the folder that `save_pretrained` wrote."
    elif Path(name).exists():
        return "this is a file. Give the folder that it is in."
    elif name.startswith((".", "/", "~", "\\")) or name.count("/") > 1:
        return "there is no such folder. Check the path."
    elif os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "off", "no"):
        return (
            "there is no such folder, it is not in the cache, and HF_HUB_OFFLINE is set, so the Hub is not asked. "
            "Give a folder, another name, or unset HF_HUB_OFFLINE."
        )
    elif is_offline_mode() or "couldn't connect" in text:
        return (
            "there is no such folder, it is not in the cache, and the Hub cannot be reached. Check the name and the "
            "network, or give the folder of a saved model."
        )
    elif "not a valid model identifier" in text:
        return (
            "there is no such folder, and no such model on the Hub. Check the name on https://huggingface.co/models; "
            "for a private model, run `hf auth login` first."
        )
    elif "gated" in text:
        return "its authors ask for consent. Give it on the model's page on the Hub, then run `hf auth login`."
    sentence = text.partition(". ")[0].removesuffix(".")
    return f"{sentence}. Give a folder with a config.json and safetensors, or a model's name on the Hub."


def load_for_pretraining(name_or_path: str | os.PathLike[str], **kwargs: Any) -> SchuBertPreTrainedModel:
    """Open a BERT or SchuBERT checkpoint with all the pretraining heads that it holds, whatever class it names.

    Many a BERT was saved with both heads and names only the masked-LM one in its `architectures`.

    Returns:
        `SchuBertForPreTraining` where there is a NSP head and a pooler, else `SchuBertForMaskedLM`.

    Raises:
        ConversionError: nothing can be opened there, or it has no masked-LM head.
        SchuBertConfigError, SchuBertLoadError: as `from_pretrained`.
    """
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # no warning about a head that is tried and not there
    try:
        with opening(name_or_path):
            model, loaded = SchuBertForPreTraining.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
        tied = set(model.all_tied_weights_keys)
        missing = {key.removeprefix("bert.") for key in loaded["missing_keys"] if key not in tied}
        if any(key.startswith(("cls.seq_relationship.", "pooler.")) for key in missing):
            model = _without_next_sentence(model)
    finally:
        logging.set_verbosity(level)
    if not any(key.startswith("cls.predictions.") for key in missing):
        return cast(SchuBertPreTrainedModel, model)
    raise ConversionError(
        f"`{name_or_path}` has no masked-language-model head (`cls.predictions`), so text gives no loss to train it "
        "with. Take a checkpoint that was saved with its head, or pretrain one: examples/pretrain.py --model. A model "
        'that was fine-tuned is pruned on its task: `--task sst2`, from Python `task="sst2"`.'
    )


def _without_next_sentence(model: SchuBertPreTrainedModel) -> SchuBertPreTrainedModel:
    """A masked language model with the very tensors of one that has both heads."""
    made = SchuBertForMaskedLM.from_pretrained(
        None, config=model.config, state_dict=model.state_dict(), dtype=model.dtype
    )
    made.name_or_path = model.name_or_path
    return cast(SchuBertPreTrainedModel, made.to(model.device))


def _head(name: str) -> type[SchuBertPreTrainedModel]:
    if name not in _BY_NAME:
        raise ConversionError(
            f"No SchuBERT class is the counterpart of {name.removeprefix('Schu')!r}. There are {', '.join(_BY_NAME)}: "
            "name one with `.from_dense(model)` or `.from_pretrained(path)`."
        )
    return _BY_NAME[name]


def _check_dense_shape(config: SchuBertConfig) -> None:
    for name in LAYER_LISTS:
        widths = getattr(config, name)
        if len(set(widths)) > 1:
            raise ConversionError(f"`{name}` is {widths}: a BERT has the same in every layer. Keep the SchuBERT.")
    hidden, heads = config.hidden_sizes[0], config.head_counts[0]
    key_query, value = config.key_query_sizes[0], config.value_sizes[0]
    if min(heads, config.filter_sizes[0]) == 0 or heads * key_query != hidden or key_query != value:
        raise ConversionError(
            f"`hidden_sizes` {hidden}, `head_counts` {heads}, `key_query_sizes` {key_query}, `value_sizes` {value}, "
            f"`filter_sizes` {config.filter_sizes[0]}: a BERT has heads * key_query == hidden, key_query == value and "
            "no empty sublayer. Keep the SchuBERT."
        )


__all__ = ["ConversionError", "SchuBertLoadError", "convert_bert", "load", "load_for_pretraining", "to_bert"]
