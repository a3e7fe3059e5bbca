"""A model with the rows of some words only: word embeddings, and the decoder with its bias."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..anatomy import rebuild
from ..heads import masked_lm
from .pieces import TrimError

IDS = re.compile(r"(^|_)token_ids?$")  # fields of a config that hold ids of words


def named_ids(model: PreTrainedModel) -> dict[str, Any]:
    """The fields of a model's config that hold ids, such as `pad_token_id`; an id, or a list of ids."""
    fields = model.config.to_dict()
    return {name: value for name, value in fields.items() if IDS.search(name) and value is not None}


def with_rows(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A SchuBERT with the words of these ids, numbered anew from 0; everything else is as in `model`, which stays.

    Args:
        kept: ids in ascending order; those that `named_ids` has are among them, or name no word and go.

    Raises:
        TrimError: the padding's id goes.
    """
    new = {old: number for number, old in enumerate(kept)}
    config = copy.deepcopy(model.config)
    for name, value in named_ids(model).items():
        ids = [new[one] for one in (value if isinstance(value, list) else [value]) if one in new]
        if name == "pad_token_id" and not ids:
            raise TrimError(
                f"`pad_token_id` of the model is {value}, which is no word of its tokenizer. Correct its config.json."
            )
        setattr(config, name, ids if isinstance(value, list) else next(iter(ids), None))
    config.vocab_size = len(kept)
    made = rebuild(model, config).to(model.dtype)
    rows, sized = torch.tensor(kept), _of_words(model)
    tensors = model.state_dict()
    made.load_state_dict({name: tensor[rows] if name in sized else tensor for name, tensor in tensors.items()})
    made.tie_weights()
    return made.to(model.device).train(model.training)


def _of_words(model: PreTrainedModel) -> set[str]:
    """Names of the tensors that have a row for each word."""
    head = masked_lm(model)
    tensors = [model.get_input_embeddings().weight]
    if head is not None:
        tensors += [head.decoder.weight, head.decoder.bias, head.bias]
    found = {id(tensor) for tensor in tensors}
    return {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in found}
