"""The losses of the task heads, as objectives: the same loop and the same pruner train on them as on MLM."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import PreTrainedModel

from ..data.stream import Batch
from ..training.objective import Objective, ObjectiveError, Predictions, inputs_of


class TaskObjective(Objective):
    """Base of the objectives of task heads: one loss for the whole example, from the model's own outputs.

    Args:
        model: a model with the head of the task.

    Raises:
        ObjectiveError: the model has another head; or, by `count`, a batch lacks the labels.
    """

    rate_power = 0.0  # the dense model was trained on the same examples, at low rates
    outputs: tuple[str, ...] = ("logits",)
    labels: tuple[str, ...] = ("labels",)
    head = "SequenceClassification"
    task_type = "text-classification"  # what the Hub calls tasks of that kind

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        if not type(model).__name__.endswith(f"For{self.head}"):
            raise ObjectiveError(
                f"`{type(model).__name__}` has not the head that `{type(self).__name__}` trains. "
                f"Load the checkpoint as SchuBertFor{self.head}."
            )

    def count(self, batch: Batch) -> dict[str, int]:
        missing = [name for name in self.labels if name not in batch]
        if missing:
            raise ObjectiveError(
                f"The examples have the columns {sorted(batch)}; {type(self).__name__} needs {missing}, too."
            )
        return dict.fromkeys(self.terms, len(batch["input_ids"]))

    def predict(
        self, batch: Batch, model: PreTrainedModel | None = None, *, hidden_states: bool = False
    ) -> Predictions:
        used: Any = model or self.model
        found = used(**inputs_of(batch), output_hidden_states=hidden_states)
        labels = {term: batch[name] for term, name in zip(self.terms, self.labels, strict=True) if name in batch}
        logits = {term: getattr(found, name) for term, name in zip(self.terms, self.outputs, strict=True)}
        return Predictions(logits, labels, found.hidden_states or ())


class ClassificationObjective(TaskObjective):
    """Cross-entropy of one label per example; logits of shape (batch, labels), `labels` of shape (batch,)."""

    terms = ("classification",)


class RegressionObjective(TaskObjective):
    """Squared error of one number per example; logits of shape (batch, 1), `labels` of shape (batch,), floats.

    As a teacher's divergence it takes the squared distance of the two predictions.
    """

    terms = ("regression",)

    def losses(self, predictions: Predictions) -> dict[str, Tensor]:
        return {
            term: mse_loss(logits.float().squeeze(-1), predictions.labels[term].float(), reduction="sum")
            for term, logits in predictions.logits.items()
        }

    def divergence(self, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        return mse_loss(logits.float(), wanted.float(), reduction="sum")


class QuestionAnsweringObjective(TaskObjective):
    """Cross-entropy of the first and of the last token of the answer, over the tokens of a window.

    Devlin et al. 2019, section 4.2. Logits of shape (batch, seq); `start_positions` and `end_positions` of shape
    (batch,), the position of [CLS] where the window holds no answer.
    """

    terms = ("start", "end")
    outputs = ("start_logits", "end_logits")
    labels = ("start_positions", "end_positions")
    head = "QuestionAnswering"
    task_type = "question-answering"

    def predict(
        self, batch: Batch, model: PreTrainedModel | None = None, *, hidden_states: bool = False
    ) -> Predictions:
        found = super().predict(batch, model, hidden_states=hidden_states)
        if "attention_mask" not in batch:
            return found
        # Padding is no place for an answer. A finite number, since a teacher's -inf would make the divergence NaN.
        padding = ~batch["attention_mask"].bool()
        return found._replace(
            logits={term: logits.float().masked_fill(padding, -1e4) for term, logits in found.logits.items()}
        )
