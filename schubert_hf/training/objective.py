"""What is minimised: modules that turn a batch into sums of losses, with a model inside.

An objective returns sums, not means, and counts what they are sums of apart from the forward pass. The loop divides
by the count of the whole step, over all processes and micro-batches: a step is the same however it is cut up.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

Batch = dict[str, Tensor]
IGNORED = -100


class ObjectiveError(ValueError):
    """A model that the objective has no loss for."""


class Objective(nn.Module):
    """Base of all objectives: `terms` names the losses; `forward` gives their sums, `count` what to divide them by."""

    terms: tuple[str, ...] = ("loss",)

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def count(self, batch: Batch) -> dict[str, int]:
        """How many items each term of `terms` is summed over in this batch; needs no forward pass."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The summed losses, one scalar per term, and under `<term>_correct` how many predictions were right."""
        raise NotImplementedError


class PretrainingObjective(Objective):
    """L_MLM + L_NSP (Devlin et al. 2019; equation of Algorithm 1 in Khetan & Karnin 2020, without its penalty).

    The MLM head is applied at the masked positions alone, about a seventh of all: with a vocabulary of thousands the
    decoder would otherwise cost as much as the layers. The NSP term is there where the model has that head.

    Args:
        model: a model with a masked-LM head in `cls.predictions` and, optionally, a NSP head in
            `cls.seq_relationship`.

    Raises:
        ObjectiveError: the model has no masked-LM head; or, by `count`, the examples lack labels for a head it has.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        head: Any = getattr(model, "cls", None)
        if not hasattr(head, "predictions"):
            raise ObjectiveError(
                f"`{type(model).__name__}` has no masked-language-model head. "
                "Load the checkpoint as SchuBertForMaskedLM or SchuBertForPreTraining."
            )
        predictions = head.predictions
        if predictions.decoder.bias is not predictions.bias:
            # An untied head keeps BERT's second bias, which nothing reads: data-parallel training would wait for it.
            predictions.bias.requires_grad_(False)
        self.has_nsp = hasattr(head, "seq_relationship")
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

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        model: Any = self.model
        encoded = model.base_model(
            input_ids=batch["input_ids"],
            attention_mask=batch.get("attention_mask"),
            token_type_ids=batch.get("token_type_ids"),
        )
        masked = batch["labels"] != IGNORED  # (batch, seq)
        logits = model.cls.predictions(encoded.last_hidden_state[masked])  # (masked, vocab)
        sums = _sums("mlm", logits, batch["labels"][masked])
        if self.has_nsp:
            sums |= _sums("nsp", model.cls.seq_relationship(encoded.pooler_output), batch["next_sentence_label"])
        return sums


def _sums(term: str, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    # In float32: under autocast the logits are half precision, and a sum of thousands of losses would lose its tail.
    loss = cross_entropy(logits.float(), labels, reduction="sum")
    return {term: loss, f"{term}_correct": (logits.detach().argmax(-1) == labels).sum()}
