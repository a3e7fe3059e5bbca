"""Sentence encoders and rerankers that are built on BERT's relatives, such as multilingual-e5 and bge-reranker."""

import pytest
import torch
from relatives import QUICK, build, tokenizer_of
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

import schubert_hf
from schubert_hf.encoders.kinds import CROSS, SENTENCE

TEXTS = ["the cat sees a dog", "A king paints the river every morning."]


@pytest.fixture
def folder(corpus, tmp_path):
    """Save a model with its tokenizer, as transformers does."""

    def save(family, name):
        tokenizer = tokenizer_of(family, corpus)
        labels = {} if name.endswith("Model") else {"num_labels": 1}
        model = build(family, name, vocab_size=max(99, len(tokenizer)), **labels)
        model.save_pretrained(tmp_path / "dense")
        tokenizer.save_pretrained(tmp_path / "dense")
        return str(tmp_path / "dense")

    return save


@pytest.mark.parametrize(("family", "name"), [("xlm-roberta", "XLMRobertaModel"), ("distilbert", "DistilBertModel")])
def test_a_sentence_encoder(family, name, folder, corpus, tmp_path):
    modules = [Transformer(folder(family, name)), Pooling(36, "mean"), Normalize()]
    source = SentenceTransformer(modules=modules, device="cpu").eval()
    before = source.encode(TEXTS)
    result = schubert_hf.prune(source, "60%", text=corpus[:30], output_dir=tmp_path / "small", **QUICK)
    assert result.package.facts["kind"] == SENTENCE
    assert result.package.facts["max_length"] <= 23  # positions that tokens have
    assert (source.encode(TEXTS) == before).all()
    opened = SentenceTransformer(str(tmp_path / "small"), device="cpu", trust_remote_code=True)
    assert type(opened.tokenizer) is type(source.tokenizer)
    assert opened.encode(TEXTS) == pytest.approx(result.package.model.encode(TEXTS), abs=1e-5)


def test_a_reranker(folder, corpus, tmp_path):
    source = CrossEncoder(folder("xlm-roberta", "XLMRobertaForSequenceClassification"), device="cpu", max_length=20)
    result = schubert_hf.prune(source, "60%", text=corpus[:30], output_dir=tmp_path / "small", **QUICK)
    assert result.package.facts["kind"] == CROSS
    opened = CrossEncoder(str(tmp_path / "small"), device="cpu", trust_remote_code=True)
    assert opened.predict([TEXTS]) == pytest.approx(result.package.model.predict([TEXTS]), abs=1e-5)


def test_a_masked_lm_in_memory_is_trained_on_its_own_masks(folder, corpus):
    model = build("roberta", "RobertaForMaskedLM", vocab_size=400)
    tokenizer = tokenizer_of("roberta", corpus)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    settings = {**QUICK, "recovery_steps": 2, "max_length": 20}
    result = schubert_hf.prune(model, "60%", text=corpus[:30], tokenizer=tokenizer, **settings)
    assert set(result.rounds[0].before) == {"loss", "mlm", "mlm_accuracy"}
    assert type(result.model).__name__ == "SchuBertForMaskedLM"
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
