"""A tiny sentence encoder, built here: BERT + Pooling (+ Dense) + Normalize, all sizes different."""

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from transformers import BertConfig, BertForSequenceClassification, BertModel

WIDTH, LONGEST = 20, 30


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory, tokenizer):
    """A tiny BERT whose weights matter, saved as a model of some class."""

    def build(model_class, **fields):
        torch.manual_seed(3)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=27,
            max_position_embeddings=32,
            **fields,
        )
        model = model_class(config).eval()
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, mean=1.0 if "LayerNorm.weight" in name else 0.0, std=0.3)
        folder = tmp_path_factory.mktemp(model_class.__name__)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def sentence_transformer(bert_folder):
    """Build a new SentenceTransformer; `dense` gives it a Dense module with that many outputs."""
    folder = bert_folder(BertModel)

    def build(pooling="mean", dense=None, **settings):
        torch.manual_seed(5)
        modules = [Transformer(str(folder), max_seq_length=LONGEST), Pooling(WIDTH, pooling)]
        if dense is not None:
            modules.append(Dense(modules[1].pooling_output_dimension, dense))
        prompts = {"query": "the king: ", "document": ""}
        return SentenceTransformer(modules=[*modules, Normalize()], device="cpu", prompts=prompts, **settings).eval()

    return build


@pytest.fixture
def cross_encoder(bert_folder):
    """Build a new CrossEncoder with one score, the activation of which is not the default one."""
    folder = bert_folder(BertForSequenceClassification, num_labels=1)
    return CrossEncoder(str(folder), device="cpu", max_length=LONGEST, activation_fn=torch.nn.Tanh())
