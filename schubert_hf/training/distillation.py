"""Training with a teacher: a larger model of the same kind, whose predictions and hidden states one follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.stream import Batch
from .objective import Objective, Predictions, real_tokens


@dataclass(frozen=True)
class Teacher:
    """A model to learn from, and how."""

    model: PreTrainedModel  # of the student's kind, on its device; it is neither trained nor saved
    weight: float = 1.0  # of the divergence from its predictions; the student's own loss has 1
    temperature: float = 1.0  # that logits are divided by
    hidden_weight: float = 0.0  # of the distance from its hidden states
    channels: tuple[int, ...] | None = None  # which of its channels the student has, in the student's order; None: all
    layers: tuple[int, ...] | None = None  # which hidden states are compared, embeddings first; None: all


class DistillationObjective(Objective):
    """L + w T^2 KL(teacher || student), at the temperature T, for every term; and the distance of hidden states.

    Hinton et al. 2015 (arXiv 1503.02531), with the factor T^2 that keeps gradients alike at all temperatures; hidden
    states as in Jiao et al. 2020 (TinyBERT, arXiv 1909.10351), over the channels and layers that were kept, so that no
    map between the widths has to be learned: mean squared distance by the teacher's mean square, summed over layers.

    Args:
        objective: of the student.
        teacher: see `Teacher`.
    """

    dropout = False

    def __init__(self, objective: Objective, teacher: Teacher) -> None:
        super().__init__(objective.model)
        self.inner = objective
        # In a tuple, out of sight of `parameters()`: the teacher is not trained, wrapped or moved with the student.
        self._teacher = (teacher,)
        self.student_terms = objective.terms
        self.terms = (*objective.terms, *(f"{term}_teacher" for term in objective.terms if teacher.weight))
        self.terms += ("hidden",) if teacher.hidden_weight else ()

    def count(self, batch: Batch) -> dict[str, int]:
        counts = self.inner.count(batch)
        counts |= {f"{term}_teacher": counts[term] for term in self.student_terms}
        return {**counts, "hidden": int(real_tokens(batch).sum())}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        teacher = self._teacher[0]
        hidden = teacher.hidden_weight > 0
        student = self.inner.predict(batch, hidden_states=hidden)
        with torch.no_grad():
            wanted = self.inner.predict(batch, teacher.model, hidden_states=hidden)
        sums = self.inner.losses(student)
        if teacher.weight:
            sums |= {
                f"{term}_teacher": teacher.weight
                * self.inner.divergence(logits, wanted.logits[term], teacher.temperature)
                for term, logits in student.logits.items()
            }
        if hidden:
            sums["hidden"] = teacher.hidden_weight * _distance(student, wanted, batch, teacher)
        return sums


def _distance(student: Predictions, wanted: Predictions, batch: Batch, teacher: Teacher) -> Tensor:
    """Sum over real tokens of the relative mean squared distance of hidden states, mean over layers."""
    real = real_tokens(batch)
    layers = range(len(wanted.hidden_states)) if teacher.layers is None else teacher.layers
    distances = []
    for own, layer in zip(student.hidden_states, layers, strict=True):
        theirs = wanted.hidden_states[layer][real].float()  # (tokens, h)
        if teacher.channels is not None:
            theirs = theirs[:, list(teacher.channels)]
        distance = (own[real].float() - theirs).square().mean(-1).sum()
        distances.append(distance / theirs.square().mean().clamp(min=1e-12))
    return torch.stack(distances).mean()
