"""Distillation by its definition: what a teacher adds to the loss, and what it leaves alone."""

from collections.abc import Callable

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import softmax
from transformers import PreTrainedTokenizerBase

from schubert_hf import SchuBertConfig, SchuBertForMaskedLM, SchuBertForPreTraining
from schubert_hf.data.stream import ExampleStream, MaskingCollator
from schubert_hf.training.distillation import DistillationObjective, Teacher
from schubert_hf.training.objective import PretrainingObjective

Batch = dict[str, torch.Tensor]


@pytest.fixture
def batch(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> Batch:
    return MaskingCollator(tokenizer)([ExampleStream(pairs)[position] for position in range(9)])


@pytest.fixture
def models(tiny_config: Callable[..., SchuBertConfig]) -> tuple[SchuBertForPreTraining, SchuBertForPreTraining]:
    made = [SchuBertForPreTraining(tiny_config(0.0)).eval() for _ in range(2)]
    for model in made:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made[0], made[1]


def test_a_student_that_is_its_teacher_has_its_own_loss_alone(models, batch):
    student = PretrainingObjective(models[0])
    both = DistillationObjective(student, Teacher(models[0], weight=3.0, hidden_weight=2.0, temperature=2.0))
    sums = both(batch)
    assert both.terms == ("mlm", "nsp", "mlm_teacher", "nsp_teacher", "hidden")
    assert set(both.terms) <= set(both.count(batch))
    assert {name: sums[name] for name in student(batch)} == student(batch)
    for name in ("mlm_teacher", "nsp_teacher", "hidden"):
        assert sums[name].detach().abs() < 1e-4


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_from_the_teacher(models, batch, temperature):
    student, teacher = models
    both = DistillationObjective(PretrainingObjective(student), Teacher(teacher, weight=0.5, temperature=temperature))
    sums = both(batch)
    assert "hidden" not in both.terms
    wanted = softmax(teacher(**batch).seq_relationship_logits.double() / temperature, -1)
    given = softmax(student(**batch).seq_relationship_logits.double() / temperature, -1)
    divergence = 0.5 * temperature**2 * (wanted * (wanted / given).log()).sum()
    assert float(sums["nsp_teacher"].detach()) == pytest.approx(float(divergence.detach()), rel=1e-4)
    masked = batch["labels"] != -100
    wanted = softmax(teacher(**batch).prediction_logits[masked].double() / temperature, -1)
    given = softmax(student(**batch).prediction_logits[masked].double() / temperature, -1)
    divergence = 0.5 * temperature**2 * (wanted * (wanted / given).log()).sum()
    assert float(sums["mlm_teacher"].detach()) == pytest.approx(float(divergence.detach()), rel=1e-4)


def test_hidden_states_of_real_tokens_through_the_map_of_channels_and_layers(tiny_config, models, batch):
    """A narrower, shallower student that is the teacher's own channels is at distance 0 exactly there."""
    teacher = models[1]
    states = PretrainingObjective(teacher).predict(batch, hidden_states=True).hidden_states
    channels, layers = (3, 0, 5), (0, len(states) - 1)
    both = DistillationObjective(
        PretrainingObjective(models[0]),
        Teacher(teacher, weight=0.0, hidden_weight=1.0, channels=channels, layers=layers),
    )
    assert both.terms == ("mlm", "nsp", "hidden")

    class Student(PretrainingObjective):
        def predict(self, batch, model=None, *, hidden_states=False):
            said = super().predict(batch, model, hidden_states=hidden_states)
            if model is None:
                own = tuple(states[layer][..., list(channels)].clone() for layer in layers)
                own[0][batch["attention_mask"] == 0] += 7.0  # padding, which does not count
                own[1][0, 0] += 1.0  # one token is off by 1 in every channel
                said = said._replace(hidden_states=own)
            return said

    both.inner = Student(models[0])
    real = batch["attention_mask"].bool()
    size = states[layers[1]][real][:, list(channels)].square().mean()
    assert both.count(batch)["hidden"] == int(real.sum())
    assert float(both(batch)["hidden"].detach()) == pytest.approx(float(1 / size.detach() / 2), rel=1e-5)


def test_the_teacher_is_neither_trained_nor_seen(models, batch):
    student, teacher = models
    both = DistillationObjective(PretrainingObjective(student), Teacher(teacher, hidden_weight=1.0))
    assert {id(p) for p in both.parameters()} == {id(p) for p in student.parameters()}
    both.train()
    assert not teacher.training
    sums = both(batch)
    torch.stack([sums[term] for term in both.terms]).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_without_a_next_sentence_head(tiny_config, batch):
    student, teacher = (SchuBertForMaskedLM(tiny_config()) for _ in range(2))
    assert DistillationObjective(PretrainingObjective(student), Teacher(teacher)).terms == ("mlm", "mlm_teacher")


def test_dropout_rests_while_a_teacher_is_followed(tiny_config, batch):
    alone = PretrainingObjective(SchuBertForPreTraining(tiny_config(0.5)))
    taught = DistillationObjective(alone, Teacher(SchuBertForPreTraining(tiny_config(0.5)).eval()))
    settled = alone.eval()(batch)["mlm"]
    assert taught.train()(batch)["mlm"] == settled
    assert alone.train()(batch)["mlm"] != settled
