"""How an export is compared with the model: without any exporter, on functions that are right or wrong on purpose."""

import pytest
import torch

from schubert_hf import SchuBertForQuestionAnswering, SchuBertForTokenClassification, SchuBertModel
from schubert_hf.auto import MODELS
from schubert_hf.export.batches import NUMBER, other_batches, text_batches, traced_batch
from schubert_hf.export.checking import check
from schubert_hf.export.errors import ExportError
from schubert_hf.export.quality import quality
from schubert_hf.export.subject import Subject


@pytest.fixture(scope="session")
def subject(save):
    return Subject.open(save(SchuBertModel))


def right(subject):
    return lambda batch: subject.function(**batch)


def test_batches_are_of_other_shapes_and_padded(subject):
    batches = other_batches(subject)
    sizes = [tuple(batch["input_ids"].shape) for batch in batches]
    assert len(batches) == NUMBER
    assert tuple(traced_batch(subject)["input_ids"].shape) not in sizes
    assert (1, 1) in sizes
    assert max(length for _, length in sizes) == subject.longest
    assert max(batch for batch, _ in sizes) > 5
    assert sum(bool((batch["attention_mask"] == 0).any()) for batch in batches) > NUMBER / 2
    assert all((batch["attention_mask"].sum(-1) > 0).all() for batch in batches)  # a row has a token at least


def test_the_model_itself_passes(subject):
    found = check("x", subject, right(subject), other_batches(subject))
    assert (found.difference, found.batches) == (0.0, NUMBER)
    assert found.largest > 1


@pytest.mark.parametrize("wrong", [1e-2, float("nan"), float("inf")])
def test_one_wrong_number_fails(subject, wrong):
    """It is in the last batch alone, at one place alone."""
    batches = other_batches(subject)

    def run(batch):
        outputs = {name: x.clone() for name, x in subject.function(**batch).items()}
        if batch is batches[-1]:
            outputs["pooler_output"][-1, -1] += wrong
        return outputs

    with pytest.raises(ExportError, match="`x` differs from PyTorch by"):
        check("x", subject, run, batches)
    check("x", subject, run, batches[:-1])


def test_a_mask_that_is_ignored_fails(subject):
    """That is what a graph does whose mask was traced away."""

    def run(batch):
        return subject.function(**{**batch, "attention_mask": torch.ones_like(batch["attention_mask"])})

    with pytest.raises(ExportError, match="differs from PyTorch"):
        check("x", subject, run, other_batches(subject))


def test_another_shape_and_a_missing_output_fail(subject):
    def cropped(batch):
        return {name: x[..., :-1] for name, x in subject.function(**batch).items()}

    def fewer(batch):
        return {"last_hidden_state": subject.function(**batch)["last_hidden_state"]}

    for run in (cropped, fewer):
        with pytest.raises(ExportError, match="where PyTorch gives"):
            check("x", subject, run, other_batches(subject))


@pytest.mark.parametrize("kind", list(MODELS.values()), ids=lambda kind: kind.__name__)
def test_figures_of_the_model_itself_are_1(save, kind, corpus):
    subject = Subject.open(save(kind))
    figures = quality("x", subject, right(subject), text_batches(subject, corpus)[1])
    assert figures
    assert all(value == pytest.approx(1.0) for value in figures.values()), figures


def test_calibration_and_judging_share_no_text(subject, corpus):
    calibration, judging = (
        {tuple(row.tolist()) for batch in batches for row in batch["input_ids"].unbind()}
        for batches in text_batches(subject, corpus)
    )
    assert calibration
    assert judging
    assert not calibration & judging


def test_figures_fall_with_the_noise(subject, corpus):
    judging = text_batches(subject, corpus)[1]

    def noisy(scale):
        def run(batch):
            torch.manual_seed(0)
            return {name: x + scale * torch.randn_like(x) for name, x in subject.function(**batch).items()}

        return quality("x", subject, run, judging)["cosine"]

    assert 1.0 > noisy(0.3) > noisy(3.0)


@pytest.mark.parametrize("kind", [SchuBertForTokenClassification, SchuBertForQuestionAnswering])
def test_padding_does_not_count(save, kind, corpus):
    """Logits that are wrong at padding alone."""
    subject = Subject.open(save(kind, num_labels=3))

    def run(batch):
        padding = batch["attention_mask"] == 0
        outputs = subject.function(**batch)
        return {
            name: x + 1e3 * (padding if x.ndim == 2 else padding[..., None] * torch.eye(3)[0])
            for name, x in outputs.items()
        }

    figures = quality("x", subject, run, text_batches(subject, corpus)[1])
    assert set(figures.values()) == {1.0}


def test_numbers_that_are_not_finite_are_no_int8(subject, corpus):
    def run(batch):
        return {name: x * float("nan") for name, x in subject.function(**batch).items()}

    with pytest.raises(ExportError, match="not finite"):
        quality("x", subject, run, text_batches(subject, corpus)[1])
