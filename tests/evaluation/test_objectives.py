"""Objectives of task heads by their definition: the model's own losses, and a teacher's as sums over the items."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import mse_loss, softmax

from schubert_hf import (
    SchuBertConfig,
    SchuBertForMaskedLM,
    SchuBertForQuestionAnswering,
    SchuBertForSequenceClassification,
)
from schubert_hf.evaluation.objectives import (
    ClassificationObjective,
    QuestionAnsweringObjective,
    RegressionObjective,
)
from schubert_hf.training.distillation import DistillationObjective, Teacher
from schubert_hf.training.objective import ObjectiveError

Batch = dict[str, torch.Tensor]
KINDS = {
    "classification": (SchuBertForSequenceClassification, ClassificationObjective, {"num_labels": 3}),
    "regression": (SchuBertForSequenceClassification, RegressionObjective, {"num_labels": 1}),
    "answers": (SchuBertForQuestionAnswering, QuestionAnsweringObjective, {}),
}
LABELS = {
    "classification": {"labels": torch.tensor([2, 0, 1, 1, 0])},
    "regression": {"labels": torch.tensor([0.5, 4.2, 3.0, 0.0, 5.0])},
    "answers": {"start_positions": torch.tensor([2, 0, 4, 1, 3]), "end_positions": torch.tensor([3, 0, 6, 6, 3])},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(ragged: Callable[..., SchuBertConfig], randomised: Callable, kind: str) -> Callable:
    head, _, fields = KINDS[kind]
    return lambda: randomised(head(ragged(**fields)))


@pytest.fixture
def inputs(kind: str) -> Batch:
    """Five examples of eight tokens, without padding."""
    ids = torch.randint(5, 99, (5, 8))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **LABELS[kind]}


def test_the_sums_are_the_models_own_loss(make, inputs, kind):
    model = make()
    objective = KINDS[kind][1](model)
    sums, counts = objective(inputs), objective.count(inputs)
    mean = sum(sums[term] / counts[term] for term in objective.terms) / len(objective.terms)
    assert set(counts.values()) == {5}
    torch.testing.assert_close(mean, model(**inputs).loss)


def test_right_predictions_are_counted(make, inputs, kind):
    objective = KINDS[kind][1](make())
    sums = objective(inputs)
    if kind == "regression":
        assert set(sums) == {"regression"}
        return
    for term, name in zip(objective.terms, objective.labels, strict=True):
        best = objective.predict(inputs).logits[term].argmax(-1)
        assert sums[f"{term}_correct"] == sum(int(a) == int(b) for a, b in zip(best, inputs[name], strict=True))


def test_padding_holds_no_answer(ragged, randomised):
    objective = QuestionAnsweringObjective(randomised(SchuBertForQuestionAnswering(ragged())))
    ids = torch.randint(5, 99, (2, 6))
    labels = {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 2])}
    alone = objective({"input_ids": ids, "attention_mask": torch.ones_like(ids), **labels})
    padded = torch.nn.functional.pad(ids, (0, 3))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 3))
    together = objective({"input_ids": padded, "attention_mask": mask, **labels})
    for term in objective.terms:
        torch.testing.assert_close(alone[term], together[term])


def test_a_student_that_is_its_teacher(make, inputs, kind):
    model = make()
    student = KINDS[kind][1](model)
    taught = DistillationObjective(student, Teacher(model, weight=2.0, hidden_weight=1.0))
    sums = taught(inputs)
    assert set(taught.terms) <= set(taught.count(inputs))
    for name, value in sums.items():
        expected = student(inputs)[name] if name in student(inputs) else torch.tensor(0.0)
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-5)


def test_a_teachers_divergence(make, inputs, kind):
    models = make(), make()
    student = KINDS[kind][1](models[0])
    sums = DistillationObjective(student, Teacher(models[1], weight=3.0, temperature=2.0))(inputs)
    for term in student.terms:
        own, theirs = (student.predict(inputs, model).logits[term].detach() for model in models)
        if kind == "regression":
            expected = mse_loss(own, theirs, reduction="sum")
        else:
            p, q = softmax(theirs / 2, -1), softmax(own / 2, -1)
            expected = 4 * (p * (p / q).log()).sum()
        torch.testing.assert_close(sums[f"{term}_teacher"].detach(), 3 * expected, rtol=1e-4, atol=1e-4)


def test_another_head_is_refused(ragged, kind):
    objective = KINDS[kind][1]
    with pytest.raises(ObjectiveError, match=f"Load the checkpoint as SchuBertFor{objective.head}"):
        objective(SchuBertForMaskedLM(ragged()))


def test_examples_without_labels_are_refused(make, inputs, kind):
    objective = KINDS[kind][1](make())
    name = objective.labels[0]
    with pytest.raises(ObjectiveError, match=name):
        objective.count({key: value for key, value in inputs.items() if key != name})
