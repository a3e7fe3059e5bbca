"""What is minimised: modules that turn a batch into sums of losses, with a model inside.

An objective returns sums and, apart from the forward pass, counts. The loop divides by the count of the whole step,
over all processes and micro-batches, so a step is the same however it is cut up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import PreTrainedModel

from ..data.stream import IGNORED, Batch
from ..errors import SchuBertError
from ..heads import masked_lm, next_sentence

# What a model takes of a batch; the rest is labels.
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class ObjectiveError(SchuBertError):
    """A model that the objective has no loss for."""


def inputs_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a model takes of a batch that may also hold labels."""
    return {name: batch[name] for name in INPUTS if name in batch}


def real_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """True where a token is not padding, shape (batch, seq)."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def sequences(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of the encoder, shape (sequences, seq) each: the choices of a multiple-choice batch one by one."""
    return {name: value.flatten(0, -2) for name, value in inputs_of(batch).items()}


class Predictions(NamedTuple):
    """What a model predicts for a batch, term by term, and what is right."""

    logits: dict[str, Tensor]  # (items, classes) each
    labels: dict[str, Tensor]  # (items,) each
    hidden_states: tuple[Tensor, ...]  # embeddings and every layer, (batch, seq, h) each; empty unless asked for


class Objective(nn.Module):
    """Base of all objectives: `terms` names the losses; `forward` gives their sums, `count` what to divide them by.

    Attributes:
        follows_dense: whether the losses are distances from the dense model, which then needs no second teacher.
        rate_power: how the learning rate of a long recovery grows with its steps, as a power of them.
        dropout: whether training drops units. What a teacher without dropout gives is followed better without it.
    """

    terms: tuple[str, ...] = ("loss",)
    follows_dense = False
    rate_power = 1.0
    dropout = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> Objective:
        super().train(mode)
        if not self.dropout:
            for module in self.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()
        return self

    def count(self, batch: Batch) -> dict[str, int]:
        """How many items each term of `terms` is summed over in this batch; needs no forward pass."""
        raise NotImplementedError

    def predict(
        self, batch: Batch, model: PreTrainedModel | None = None, *, hidden_states: bool = False
    ) -> Predictions:
        """The logits of every term, by this objective's model or another of its kind, such as a teacher."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The summed losses, one scalar per term, and under `<term>_correct` how many predictions were right."""
        return self.losses(self.predict(batch))

    def probes(self, batch: Batch) -> Iterator[Tensor]:
        """Scalars whose squared gradients, summed, are the curvature of the loss; they may share one graph.

        Here the loss itself, whose squared gradient is its empirical Fisher information.
        """
        sums = self(batch)
        yield torch.stack([sums[term] for term in self.terms]).sum()

    def losses(self, predictions: Predictions) -> dict[str, Tensor]:
        """What `forward` gives, of predictions that are there: cross-entropies, and how many were right."""
        sums: dict[str, Tensor] = {}
        for term, logits in predictions.logits.items():
            labels = predictions.labels[term]
            # In float32: under autocast the logits are half precision, and a sum of thousands would lose its tail.
            sums[term] = cross_entropy(logits.float(), labels, reduction="sum")
            sums[f"{term}_correct"] = (logits.detach().argmax(-1) == labels).sum()
        return sums

    def divergence(self, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """How far one term's logits are from a teacher's, summed over the items: T^2 KL(wanted || logits)."""
        student, teacher = (log_softmax(x.float() / temperature, dim=-1) for x in (logits, wanted))
        return kl_div(student, teacher, log_target=True, reduction="sum") * temperature**2


def freeze_second_bias(model: PreTrainedModel) -> None:
    """An untied masked-LM head keeps BERT's second bias; nothing reads it, and data-parallel training would wait."""
    head = masked_lm(model)
    if head is not None and head.decoder.bias is not head.bias:
        head.bias.requires_grad_(False)


class PretrainingObjective(Objective):
    """L_MLM + L_NSP (Devlin et al. 2019; equation of Algorithm 1 in Khetan & Karnin 2020, without its penalty).

    The MLM head is applied at the masked positions alone, about a seventh of all: with a vocabulary of thousands the
    decoder would otherwise cost as much as the layers. The NSP term is there where the model has that head.

    Args:
        model: a model with a masked-LM head and, optionally, a next-sentence head.

    Raises:
        ObjectiveError: the model has no masked-LM head; or, by `count`, the examples lack labels for a head it has.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        head = masked_lm(model)
        if head is None:
            raise ObjectiveError(
                f"`{type(model).__name__}` has no masked-language-model head. "
                "Load the checkpoint as SchuBertForMaskedLM or SchuBertForPreTraining."
            )
        freeze_second_bias(model)
        self.has_nsp = next_sentence(model) is not None
        self.terms = ("mlm", "nsp") if self.has_nsp else ("mlm",)

    def count(self, batch: Batch) -> dict[str, int]:
        counts = {"mlm": int((batch["labels"] != IGNORED).sum())}
        if self.has_nsp:
            if "next_sentence_label" not in batch:
                raise ObjectiveError(
                    f"The examples have the columns {sorted(batch)}; a model with a next-sentence head needs "
                    "`next_sentence_label`, too. Add it (see `make_pairs`), or load the model as SchuBertForMaskedLM."
                )
            counts["nsp"] = len(batch["next_sentence_label"])
        return counts

    def predict(
        self, batch: Batch, model: PreTrainedModel | None = None, *, hidden_states: bool = False
    ) -> Predictions:
        used: Any = model or self.model
        encoded = used.base_model(**inputs_of(batch), output_hidden_states=hidden_states)
        masked = batch["labels"] != IGNORED  # (batch, seq)
        predict, relate = masked_lm(used), next_sentence(used)
        assert predict is not None
        logits = {"mlm": predict.module(encoded.last_hidden_state[masked])}  # (masked, vocab)
        labels = {"mlm": batch["labels"][masked]}
        if relate is not None:
            logits["nsp"] = relate(encoded.pooler_output)
            labels["nsp"] = batch["next_sentence_label"]
        return Predictions(logits, labels, encoded.hidden_states or ())
