"""The dense model as a teacher in recovery: who wants one, and what it is compared with."""

import pytest
import torch

from schubert_hf.pruning.config import PruningConfigError
from schubert_hf.pruning.phases import wants_teacher, with_teacher
from schubert_hf.training.distillation import DistillationObjective
from schubert_hf.training.objective import Objective, ObjectiveError, PretrainingObjective


class Mute(Objective):
    """An objective that says nothing but its loss."""

    terms = ("mlm",)

    def __init__(self, model):
        super().__init__(model)
        self.inner = PretrainingObjective(model)

    def count(self, batch):
        return {"mlm": self.inner.count(batch)["mlm"]}

    def forward(self, batch):
        return {"mlm": self.inner(batch)["mlm"]}


def test_the_default_has_a_teacher_and_the_papers_method_none(make_pruner):
    assert make_pruner().config.teacher_weight == 1
    assert wants_teacher(make_pruner().config)
    assert not wants_teacher(make_pruner(method="schubert").config)
    assert not wants_teacher(make_pruner(recovery_steps=0).config)
    assert wants_teacher(make_pruner(method="schubert", teacher_weight=0.5).config)


def test_an_objective_that_cannot_be_taught_is_refused_at_once(make_pruner):
    with pytest.raises(ObjectiveError, match="`Mute` has no `predict`, which a teacher needs"):
        make_pruner(objective=Mute)
    result = make_pruner(objective=Mute, teacher_weight=0, rounds=1).prune()
    assert set(result.rounds[0].before) == {"mlm", "loss", "mlm_accuracy"}


def test_hidden_states_are_compared_through_channels_and_layers_of_all_rounds(make_pruner):
    """A teacher whose own channels and layers the student is: no distance, whatever was cut."""
    pruner = make_pruner(dimensions="hl", rounds=2, target="55%", teacher_hidden_weight=1.0, multiple_of=2)
    result = pruner.prune()
    objective = with_teacher(pruner.objective, pruner.dense, result.plans, pruner.config)
    assert isinstance(objective, DistillationObjective)
    batch = pruner.data.collator([pruner.data.stream[n] for n in range(4)])
    teacher = objective._teacher[0]
    assert len(teacher.channels) == result.model.config.hidden_size
    assert len(teacher.layers) == 1 + result.model.config.num_hidden_layers
    assert float(objective(batch)["hidden"].detach()) > 0
    states = pruner.objective.predict(batch, pruner.dense, hidden_states=True).hidden_states
    kept = [states[layer][..., list(teacher.channels)] for layer in teacher.layers]
    predict = pruner.objective.predict

    def pretend(batch, model=None, *, hidden_states=False):
        said = predict(batch, model, hidden_states=hidden_states)
        return said if model is not None else said._replace(hidden_states=tuple(kept))

    objective.inner.predict = pretend
    assert float(objective(batch)["hidden"].detach()) == 0
    assert torch.isfinite(objective(batch)["mlm_teacher"])


def test_too_few_examples_to_look_at(make_pruner):
    with pytest.raises(PruningConfigError, match="`calibration_examples` is 0; allowed is a whole number of at least"):
        make_pruner(calibration_examples=0)
