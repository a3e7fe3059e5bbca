"""The objective's sums are the losses of the model's own forward pass."""

from collections.abc import Callable

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification, PreTrainedTokenizerBase

from schubert_hf import SchuBertConfig, SchuBertForMaskedLM, SchuBertForPreTraining
from schubert_hf.data.stream import ExampleStream, MaskingCollator
from schubert_hf.training.objective import IGNORED, ObjectiveError, PretrainingObjective

Batch = dict[str, torch.Tensor]


@pytest.fixture
def batch(pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> Batch:
    return MaskingCollator(tokenizer)([ExampleStream(pairs)[position] for position in range(9)])


def test_equals_the_models_own_loss(objective: Callable[..., PretrainingObjective], batch: Batch) -> None:
    own = objective().eval()
    sums, counts = own(batch), own.count(batch)
    assert counts == {"mlm": int((batch["labels"] != IGNORED).sum()), "nsp": 9}
    output = own.model(**batch)
    loss = sums["mlm"] / counts["mlm"] + sums["nsp"] / counts["nsp"]
    torch.testing.assert_close(loss, output.loss)
    chosen = batch["labels"] != IGNORED
    right = (output.prediction_logits.argmax(-1) == batch["labels"])[chosen].sum()
    assert sums["mlm_correct"] == right
    assert sums["nsp_correct"] == (output.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]).sum()


def test_bert_of_transformers(batch: Batch, tokenizer: PreTrainedTokenizerBase) -> None:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=14,
        max_position_embeddings=32,
    )
    own = PretrainingObjective(BertForPreTraining(config)).eval()
    sums, counts = own(batch), own.count(batch)
    torch.testing.assert_close(
        sums["mlm"] / counts["mlm"] + sums["nsp"] / counts["nsp"], own.model(**batch).loss, rtol=1e-5, atol=1e-6
    )


def test_without_a_next_sentence_head(tiny_config: Callable[..., SchuBertConfig], batch: Batch) -> None:
    own = PretrainingObjective(SchuBertForMaskedLM(tiny_config())).eval()
    assert own.terms == ("mlm",)
    batch.pop("next_sentence_label")
    torch.testing.assert_close(own(batch)["mlm"] / own.count(batch)["mlm"], own.model(**batch).loss)


def test_a_batch_without_masked_tokens_has_gradients_of_zero(
    objective: Callable[..., PretrainingObjective], batch: Batch
) -> None:
    own = objective()
    batch["labels"].fill_(IGNORED)
    sums = own(batch)
    assert own.count(batch)["mlm"] == sums["mlm"] == sums["mlm_correct"] == 0
    (sums["mlm"] + sums["nsp"]).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in own.parameters() if parameter.grad is not None)


def test_model_without_head() -> None:
    model = BertForSequenceClassification(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(ObjectiveError, match="no masked-language-model head"):
        PretrainingObjective(model)


def test_examples_without_next_sentence_labels(objective: Callable[..., PretrainingObjective], batch: Batch) -> None:
    batch.pop("next_sentence_label")
    with pytest.raises(ObjectiveError, match="next_sentence_label"):
        objective().count(batch)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_that_wants_a_gradient_gets_one(
    tied: bool, tiny_config: Callable[..., SchuBertConfig], batch: Batch
) -> None:
    config = tiny_config()
    config.tie_word_embeddings = tied
    model = SchuBertForPreTraining(config)
    objective = PretrainingObjective(model)
    terms = objective(batch)
    torch.stack([terms[name] for name in objective.terms]).sum().backward()
    # Data-parallel training stops at a parameter without one.
    assert not [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
