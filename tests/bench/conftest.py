"""A BERT and a pruned model to time, saved in folders."""

import pytest
import transformers

from schubert_hf import SchuBertForMaskedLM


@pytest.fixture
def dense(tmp_path, bert_config):
    transformers.BertForMaskedLM(bert_config()).save_pretrained(tmp_path / "dense")
    return str(tmp_path / "dense")


@pytest.fixture
def pruned(tmp_path, ragged):
    SchuBertForMaskedLM(ragged()).save_pretrained(tmp_path / "pruned")
    return str(tmp_path / "pruned")
