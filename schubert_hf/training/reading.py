"""What a model gives for unlabelled text, by its head: token states, or logits; and how many items of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.stream import Batch
from ..heads import masked_lm, next_sentence
from .objective import ObjectiveError, inputs_of, real_tokens

WORDS = 6  # one real token in so many: the decoder costs as much as the layers
HEADS: dict[str, tuple[str, ...]] = {
    "": ("states",),
    "PreTraining": ("mlm_logits", "nsp_logits"),
    "MaskedLM": ("mlm_logits",),
    "NextSentencePrediction": ("logits",),
    "SequenceClassification": ("logits",),
    "MultipleChoice": ("logits",),
    "TokenClassification": ("logits",),
    "QuestionAnswering": ("start_logits", "end_logits"),
}


class Given(NamedTuple):
    """What a model gives for a batch, by term: `outputs` of shape (items, width), in single precision at least."""

    outputs: dict[str, Tensor]
    hidden_states: tuple[Tensor, ...]  # embeddings and every layer, (batch, seq, h) each; empty unless asked for


def head_of(model: PreTrainedModel) -> str:
    """The head that a model's class names: "" for a bare encoder, else one of `HEADS`.

    Raises:
        ObjectiveError: none of these.
    """
    name = type(model).__name__
    head = name.partition("For")[2]
    if head not in HEADS or not (head or name.endswith("Model")):
        known = ", ".join(filter(None, HEADS))
        raise ObjectiveError(
            f"`{name}` has a head whose outputs are not known. Known are bare encoders and the heads {known}: load "
            "the checkpoint with one of them."
        )
    return head


def several_labels(head: str, model: PreTrainedModel) -> bool:
    """Whether any number of a classifier's labels may be right: each logit counts by itself."""
    return head == "SequenceClassification" and model.config.problem_type == "multi_label_classification"


def read(head: str, model: PreTrainedModel, batch: Batch, *, hidden_states: bool = False) -> Given:
    """The outputs of a model with that head; `states` are those of real tokens, a tagger's logits too."""
    used: Any = model
    encoder = head in ("", "MaskedLM", "PreTraining")
    found = (used.base_model if encoder else used)(**inputs_of(batch), output_hidden_states=hidden_states)
    outputs: dict[str, Tensor] = {}
    if head == "":
        outputs["states"] = found.last_hidden_state[real_tokens(batch)]  # (tokens, h)
    elif encoder:
        predict, relate = masked_lm(model), next_sentence(model)
        assert predict is not None
        outputs["mlm_logits"] = predict.module(found.last_hidden_state[_some_tokens(batch)])  # (tokens, vocab)
        if relate is not None:
            outputs["nsp_logits"] = relate(found.pooler_output)
    elif head == "QuestionAnswering":
        # Padding is no place for an answer. A finite number, since -inf would make the divergence NaN.
        padding = ~real_tokens(batch)
        for term in HEADS[head]:
            outputs[term] = getattr(found, term).float().masked_fill(padding, -1e4)  # (batch, seq)
    elif head == "TokenClassification":
        outputs["logits"] = found.logits[real_tokens(batch)]  # (tokens, labels)
    else:
        outputs["logits"] = found.logits  # (batch, labels)
    wide = {term: x.to(torch.promote_types(x.dtype, torch.float32)) for term, x in outputs.items()}
    return Given(wide, found.hidden_states or ())


def items(head: str, term: str, batch: Batch) -> Tensor:
    """How many items of a term each example of a batch has, shape (batch,)."""
    if term == "mlm_logits":
        return _some_tokens(batch).sum(-1)
    if term == "states" or head == "TokenClassification":
        return real_tokens(batch).sum(-1)
    return torch.ones(len(batch["input_ids"]), dtype=torch.long)


def _some_tokens(batch: Batch) -> Tensor:
    """True at one in `WORDS` real tokens, shape (batch, seq); an example's own tokens decide, not its batch."""
    ids = batch["input_ids"]
    mixed = ids * 40503 + torch.arange(ids.shape[-1], device=ids.device) * 30011
    return real_tokens(batch) & (mixed % WORDS == 0)
