"""A text and a BERT of seconds, on disk, for scripts that run in processes of their own."""

import random
from pathlib import Path

import pytest
import torch
from starts import train_wordpiece
from transformers import BertConfig, BertForPreTraining, BertTokenizerFast

from schubert_hf.data.text import load_documents


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    rng = random.Random(0)
    nouns = ["fox", "dog", "bird", "king", "river", "garden", "letter", "ship"]
    verbs = ["saw", "found", "lost", "painted", "followed", "sold"]
    sentences = [f"The {rng.choice(nouns)} {rng.choice(verbs)} a {rng.choice(nouns)}." for _ in range(1200)]
    blocks = ["\n".join(sentences[i : i + 12]) for i in range(0, len(sentences), 12)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(blocks), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bert(tmp_path_factory, text) -> Path:
    """A tiny BERT of transformers, saved by transformers."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = train_wordpiece(load_documents(text), vocab_size=120, max_length=24)
    assert isinstance(tokenizer, BertTokenizerFast)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=36,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=24,
    )
    BertForPreTraining(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
