"""Measures of a masked language model against their definitions, token by token."""

import math

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

from schubert_hf import SchuBertForMaskedLM
from schubert_hf.data.stream import ExampleStream, MaskingCollator
from schubert_hf.errors import EvaluationDataError
from schubert_hf.evaluation.language_model import evaluate_model
from schubert_hf.training.objective import ObjectiveError
from schubert_hf.training.step import NonFiniteLossError


@pytest.fixture
def pairs() -> Dataset:
    """Nine pairs of 8 to 16 word pieces, of [CLS] A [SEP] B [SEP]."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(9):
        ids = torch.randint(5, 60, (5 + number,), generator=generator).tolist()
        rows.append(
            {
                "input_ids": [2, *ids[:3], 3, *ids[3:], 3],
                "token_type_ids": [0] * 5 + [1] * (3 + number),
                "next_sentence_label": number % 2,
            }
        )
    return Dataset.from_list(rows)


@pytest.fixture
def bert(encoder):
    torch.manual_seed(0)
    return BertForPreTraining(BertConfig.from_pretrained(encoder)).eval()


def measure(model, pairs, tokenizer, **options):
    return evaluate_model(model, dataset=pairs, tokenizer=tokenizer, accelerator=Accelerator(cpu=True), **options)


def test_the_loss_is_the_models_own(bert, pairs, tokenizer):
    found = measure(bert, pairs, tokenizer, batch_size=4, seed=7)
    batch = MaskingCollator(tokenizer, seed=7)([ExampleStream(pairs, shuffle=False)[number] for number in range(9)])
    with torch.no_grad():
        outputs = bert(**batch)
    masked = batch["labels"] != -100
    total = float(outputs.loss)
    assert found.loss + found.next_sentence_loss == pytest.approx(total, rel=1e-5)
    right = (outputs.prediction_logits.argmax(-1) == batch["labels"])[masked].float().mean()
    assert found.accuracy == pytest.approx(float(right))
    assert found.masked_examples == 9


def test_pseudo_perplexity_token_by_token(bert, pairs, tokenizer):
    found = measure(bert, pairs, tokenizer, batch_size=3, scored_examples=4)
    surprise, tokens = 0.0, 0
    for example in pairs.select(range(4)):
        ids = torch.tensor([example["input_ids"]])
        for place, token in enumerate(example["input_ids"]):
            if token in tokenizer.all_special_ids:
                continue
            masked = ids.clone()
            masked[0, place] = tokenizer.mask_token_id
            with torch.no_grad():
                logits = bert(input_ids=masked, token_type_ids=torch.tensor([example["token_type_ids"]]))
            surprise -= float(logits.prediction_logits[0, place].log_softmax(-1)[token])
            tokens += 1
    assert found.scored_tokens == tokens
    assert found.pseudo_perplexity == pytest.approx(math.exp(surprise / tokens), rel=1e-5)


def test_the_model_stays_as_it_is(bert, pairs, tokenizer):
    bert.train()
    before = {name: (value.clone(), value.requires_grad) for name, value in bert.named_parameters()}
    measure(bert, pairs, tokenizer, scored_examples=1)
    assert bert.training
    for name, parameter in bert.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.requires_grad == before[name][1]
        assert parameter.grad is None


def test_models_without_the_next_sentence_head(ragged, pairs, tokenizer):
    model = SchuBertForMaskedLM(ragged(vocab_size=len(tokenizer)))
    found = measure(model, pairs, tokenizer, examples=5, scored_examples=0)
    assert found.next_sentence_loss is None
    assert found.pseudo_perplexity is None
    assert "pseudo_perplexity" not in found.to_json()
    assert (found.masked_examples, found.scored_tokens) == (5, 0)
    assert measure(model, pairs, tokenizer, examples=5, scored_examples=0) == found


def test_text_is_made_into_pairs(bert, tokenizer, tmp_path):
    text = "\n\n".join(" ".join(f"w{n} w{n + 1} w{m}." for m in range(6)) for n in range(5))
    (tmp_path / "text.txt").write_text(text)
    by_path = measure(bert, tmp_path / "text.txt", tokenizer, max_length=16, scored_examples=2)
    documents = Dataset.from_dict({"text": text.split("\n\n")})
    assert measure(bert, documents, tokenizer, max_length=16, scored_examples=2) == by_path


def test_bad_input(bert, encoder, pairs, tokenizer):
    with pytest.raises(EvaluationDataError, match="`task` is 'sst2'; allowed is 'mlm'"):
        measure(bert, pairs, tokenizer, task="sst2")
    with pytest.raises(EvaluationDataError, match=r"has the columns \['body'\]"):
        measure(bert, Dataset.from_dict({"body": ["x"]}), tokenizer)
    with pytest.raises(EvaluationDataError, match="holds no examples"):
        measure(bert, pairs.select([]), tokenizer)
    with pytest.raises(ObjectiveError, match="no masked-language-model head"):
        measure(BertModel.from_pretrained(encoder), pairs, tokenizer)
    headless = BertForMaskedLM(BertConfig.from_pretrained(encoder))
    with torch.no_grad():
        headless.cls.predictions.transform.dense.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError):
        measure(headless, pairs, tokenizer)
