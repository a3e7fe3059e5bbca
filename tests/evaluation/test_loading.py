"""Checkpoints for a task: heads that are there, fresh ones, and those of another task."""

import json
import shutil
import sys

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from schubert_hf import SchuBertForMaskedLM
from schubert_hf.conversion import ConversionError
from schubert_hf.evaluation.loading import load_for_task, load_tokenizer
from schubert_hf.modeling_schubert import SchuBertLoadError

LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture
def classifier(tmp_path, encoder):
    """Save a BERT with a trained head, by transformers; keyword arguments go to its config."""

    def build(**fields):
        folder = tmp_path / "classifier"
        torch.manual_seed(1)
        config = BertConfig.from_pretrained(encoder, **fields)
        model = BertForSequenceClassification(config).eval()
        model.save_pretrained(folder)
        return folder, model

    return build


def test_a_fresh_head_depends_on_its_seed_alone(encoder):
    first = load_for_task(encoder, "SequenceClassification", LABELS, seed=3)
    before = torch.random.get_rng_state()
    torch.manual_seed(99)
    again = load_for_task(encoder, "SequenceClassification", LABELS, seed=3)
    assert torch.equal(torch.random.get_rng_state(), torch.Generator().manual_seed(99).get_state())
    torch.random.set_rng_state(before)
    other = load_for_task(encoder, "SequenceClassification", LABELS, seed=4)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.config.id2label == dict(enumerate(LABELS))
    assert first.config.problem_type == "single_label_classification"
    assert load_for_task(encoder, "SequenceClassification").config.num_labels == 1


def test_a_trained_head_is_kept(classifier):
    folder, model = classifier(num_labels=3)
    loaded = load_for_task(folder, "SequenceClassification", LABELS, trained=True).eval()
    ids = torch.arange(5, 21).reshape(2, 8)
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_labels_in_another_order_are_put_in_order(classifier):
    """Published MNLI checkpoints differ in this; read as they are, they would be wrong two times of three."""
    folder, model = classifier(id2label={0: "CONTRADICTION", 1: "entailment", 2: "neutral"})
    loaded = load_for_task(folder, "SequenceClassification", LABELS, trained=True).eval()
    ids = torch.arange(5, 21).reshape(2, 8)
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits[:, [1, 2, 0]])
    assert loaded.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_labels": 2}, "has a head of 2 labels; the task needs one of 3 labels"),
        ({"id2label": {0: "sports", 1: "politics", 2: "arts"}}, "was trained for the labels"),
    ],
)
def test_a_head_of_another_task_is_refused_or_replaced(classifier, fields, words):
    folder, _ = classifier(**fields)
    with pytest.raises(ConversionError, match=words):
        load_for_task(folder, "SequenceClassification", LABELS, trained=True)
    assert load_for_task(folder, "SequenceClassification", LABELS).config.num_labels == 3


def test_no_head_at_all(encoder, ragged, tmp_path):
    for head in ("SequenceClassification", "QuestionAnswering"):
        with pytest.raises(ConversionError, match=f"no trained head for {head}"):
            load_for_task(encoder, head, trained=True)
    SchuBertForMaskedLM(ragged()).save_pretrained(tmp_path)
    assert load_for_task(tmp_path, "QuestionAnswering").config.hidden_sizes == [37, 31, 43]


def test_what_cannot_be_opened(tmp_path, encoder):
    with pytest.raises(ConversionError, match="cannot be opened"):
        load_for_task(tmp_path / "nowhere", "QuestionAnswering")
    shutil.copytree(encoder, tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").unlink()
    with pytest.raises(SchuBertLoadError, match="no safetensors"):
        load_for_task(tmp_path / "torn", "QuestionAnswering")


def test_tokenizers(tmp_path, encoder):
    (tmp_path / "config.json").write_text((encoder / "config.json").read_text())
    with pytest.raises(ConversionError, match="no tokenizer beside its weights"):
        load_tokenizer(tmp_path)
    model = load_for_task(encoder, "QuestionAnswering")
    assert len(load_tokenizer(encoder, model.config)) == model.config.vocab_size
    model.config.vocab_size -= 1
    with pytest.raises(ConversionError, match="word pieces, the model"):
        load_tokenizer(encoder, model.config)
    assert json.loads((encoder / "config.json").read_text())["model_type"] == "bert"


def test_a_tokenizer_whose_package_is_missing(tmp_path, encoder, monkeypatch):
    shutil.copyfile(encoder / "config.json", tmp_path / "config.json")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nw1\n")
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    monkeypatch.setitem(sys.modules, "fugashi", None)  # as if it were not installed
    with pytest.raises(ConversionError, match=f"`{tmp_path}` has no tokenizer .* that opens: You need to install fug"):
        load_tokenizer(tmp_path)

    def requires(*_):
        raise ImportError("\nX requires the Y library. Check out the\ninstallation page: https://y and restart.\n")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", requires)
    with pytest.raises(ConversionError, match=r"opens: X requires the Y library\. .* page: https://y and restart\.$"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_is_held_against_its_own_model(tmp_path, encoder):
    shutil.copytree(encoder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 7}))
    with pytest.raises(ConversionError, match="word pieces, the model 7 embeddings"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "type_vocab_size": 1}))
    assert "token_type_ids" not in load_tokenizer(tmp_path)("w1", "w2")  # of one segment
    assert "token_type_ids" in load_tokenizer(encoder)("w1", "w2")


def test_a_head_of_as_many_other_labels_starts_afresh(classifier):
    folder, model = classifier(id2label={0: "sad", 1: "happy"}, label2id={"sad": 0, "happy": 1})
    state = torch.random.get_rng_state()
    first, again, other = (load_for_task(folder, "SequenceClassification", ("no", "yes"), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [each.classifier.weight for each in (first, again, other, model)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert torch.equal(first.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
