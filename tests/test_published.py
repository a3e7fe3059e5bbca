"""Repositories of the Hub in small: what tools of many ages wrote is opened and pruned, and the tokenizer stays."""

import json
from importlib.util import find_spec

import pytest
import torch
from published import REPOSITORIES, write_repository
from relatives import QUICK, tokenizer_of
from transformers import AutoTokenizer, BertForPreTraining

import schubert_hf
from schubert_hf.conversion import ConversionError

PAIRS = [["the cat", "a dog"], ["A king paints.", "the old river"]]


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("name", REPOSITORIES)
def test_the_same_outputs_then_pruned_with_its_tokenizer(name, corpus, tmp_path):
    theirs = write_repository(name, tmp_path, corpus)
    theirs = theirs.electra if name.startswith("google/electra") else theirs
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    given = tokenizer(PAIRS, padding=True, truncation=True, return_tensors="pt")
    assert given["attention_mask"].min() == 0
    with torch.no_grad():
        want, got = theirs(**given)[0], schubert_hf.load(tmp_path)(**given)[0]
    if want.ndim == 3:
        want, got = (x[given["attention_mask"].bool()] for x in (want, got))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)

    result = schubert_hf.prune(tmp_path, "60%", text=corpus[:30], output_dir=tmp_path / "small", **QUICK)
    assert result.kept <= 0.6
    opened = AutoTokenizer.from_pretrained(tmp_path / "small")
    assert type(opened) is type(tokenizer)
    assert opened.get_vocab() == tokenizer.get_vocab()
    for setting in ("pad_token_id", "mask_token_id", "model_max_length", "padding_side"):
        assert getattr(opened, setting) == getattr(tokenizer, setting)
    assert opened(PAIRS)["input_ids"] == tokenizer(PAIRS)["input_ids"]


def test_the_first_word_of_an_xlm_r_vocabulary_is_no_padding_to_a_bert(corpus, tmp_path):
    """The config of such a BERT says that 0 pads, which is `<s>`: its embedding must stay what it is."""
    theirs = write_repository("intfloat/multilingual-e5-small", tmp_path, corpus).get_input_embeddings().weight
    result = schubert_hf.prune(tmp_path, "60%", text=corpus[:30], dimensions="fakv", **QUICK)
    assert theirs[0].abs().max() > 0.1
    assert torch.equal(result.model.get_input_embeddings().weight.cpu(), theirs)


def test_the_first_berts_name_no_class(bert_config, corpus, tmp_path):
    """Neither a class nor a type: such a checkpoint is searched for its pretraining heads."""
    tokenizer_of("bert", corpus).save_pretrained(tmp_path)
    BertForPreTraining(bert_config(vocab_size=160)).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["architectures"], fields["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    result = schubert_hf.prune(tmp_path, "60%", text=corpus[:30], **QUICK)
    assert isinstance(result.model, schubert_hf.SchuBertForPreTraining)


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="it is there")
def test_a_sentencepiece_model_alone_needs_its_package(corpus, tmp_path):
    write_repository("BAAI/bge-m3", tmp_path, corpus)
    (tmp_path / "tokenizer.json").rename(tmp_path / "sentencepiece.bpe.model")
    with pytest.raises(ConversionError, match="pip install sentencepiece"):
        schubert_hf.prune(tmp_path, "60%", text=corpus[:30], **QUICK)
